"""The backbones that adapters describe, and what each gate saves on a published model.

Counting takes minutes, so the counts stand in docs/backbones.json, and the page is made of them:

    python docs/_generate/backbones.py --count              # all rows
    python docs/_generate/backbones.py --count SDXL Wan     # rows with these words in their names
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # then its folder is on the path, and its package's is not
    sys.path[0] = str(Path(__file__).parents[1])

from _generate.backbone_models import MODELS, Model
from _generate.markdown import code, table

COUNTS = Path(__file__).parents[1] / "backbones.json"

#: Gates whose part of a row's MACs is counted.
PARTS = ("cross", "self", "text", "block")

HEADER = (
    "backbone",
    "counted model",
    "adapter",
    "sites",
    "branches",
    "one row",
    "TMAC",
    "guidance saves",
    *(f"{part} saves" for part in PARTS),
)


def backbone_table(counts: Mapping[str, Any] | None = None) -> str:
    """Every described class, with at least one model of it."""
    rows = (counts or read())["rows"]
    return table(HEADER, (_line(model, rows[model.key]) for model in MODELS))


def generic_list(counts: Mapping[str, Any] | None = None) -> str:
    """What the generic rule takes, by name."""
    return ", ".join(map(code, (counts or read())["generic"])) + ".\n"


def left_out_table(counts: Mapping[str, Any] | None = None) -> str:
    """What nobody takes, with the generic adapter's own sentence."""
    return table(("class", "why"), (counts or read())["left_out"].items())


def read() -> dict[str, Any]:
    """The counts as they were made."""
    made: dict[str, Any] = json.loads(COUNTS.read_text())
    return made


def _line(model: Model, row: Mapping[str, Any]) -> list[str]:
    sites = ", ".join(f"{row['sites'][k]} {k}" for k in PARTS if k in row["sites"])
    line = [code(model.backbone), model.name, code(row["adapter"]), sites or "-", row["branches"]]
    if model.why is not None:
        return [*line, "not counted", "-", *["-"] * (1 + len(PARTS))]
    shape = "x".join(map(str, row["sample"]))
    saves = [percent(row["saves"].get(part)) for part in ("guidance", *PARTS)]
    return [*line, f"{shape}, text {model.tokens}", tera(row["macs"]), *saves]


def tera(macs: float) -> str:
    """MACs in units of 10^12, with three digits.

    >>> tera(4.0237e11), tera(6034.3e12)
    ('0.402', '6,030')
    """
    value = float(f"{macs / 1e12:.3g}")
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share as people read it.

    >>> percent(0.5), percent(0.0812), percent(None)
    ('50 %', '8.1 %', '-')
    """
    return "-" if share is None else f"{round(100 * share, 1):g} %"


def not_counted(models: Iterable[Model] = MODELS) -> str:
    """A line for each reason why some models have no numbers."""
    reasons: dict[str, list[str]] = {}
    for model in models:
        if model.why is not None:
            reasons.setdefault(model.why, []).append(code(model.backbone))
    return "".join(f"- {', '.join(names)}: {why}.\n" for why, names in reasons.items())


# -- counting ------------------------------------------------------------------------------------


def question(model: Model) -> dict[str, Any]:
    """What a row was counted from; a row whose question has changed is to be counted again."""
    asked = {"config": dict(model.config), "tokens": model.tokens, "size": model.size}
    plain: dict[str, Any] = json.loads(json.dumps(asked))
    return plain


def counted(model: Model) -> dict[str, Any]:
    """One row: the backbone built without weights, one row of a call counted by module."""
    adapter = _adapter(model.backbone)
    backbone = adapter.build({"_class_name": model.backbone, **model.config})
    sites = adapter.sites(backbone)
    about = adapter.about(backbone)
    branches = "embedded" if about.embeds(backbone.config) else about.calls
    row = {
        "asked": question(model),
        "adapter": adapter.name,
        "branches": f"{branches}, kept open" if about.opaque else branches,
        "sites": dict(Counter(site.kind for site in sites)),
    }
    high, wide = model.size or (None, None)
    size = {"height": high, "width": wide, "tokens": model.tokens}
    call = adapter.example_inputs(backbone, rows=1, **size)
    if (call is None) is (model.why is None):
        raise ValueError(f"{model.key}: the recipe says it can{'not' * (call is None)} be counted.")
    return row if call is None else row | _counts(adapter, backbone, call)


def _counts(adapter: Any, backbone: Any, call: Any) -> dict[str, Any]:
    from tgate_sampling.cost import Footprint, count

    footprint = Footprint(count(backbone, *call))
    names: dict[str, list[str]] = {}
    for site in adapter.sites(backbone):
        names.setdefault(site.kind, []).append(site.name)
    if adapter.branches(backbone):
        names["block"] = [site.name for site in adapter.blocks(backbone, 0)]
    whole = footprint.whole.true
    saves = {part: footprint.of(names[part]).true / whole for part in PARTS if part in names}
    two = adapter.guided(backbone) and adapter.opaque(backbone) is None
    return {
        "sample": list(adapter.read(backbone, *call).sample.shape)[1:],
        "macs": whole,
        "saves": {"guidance": 0.5, **saves} if two else saves,
    }


def _adapter(name: str) -> Any:
    from tgate_adapters.diffusers_dit import DiTAdapter
    from tgate_adapters.diffusers_mmdit import MMDiTAdapter
    from tgate_adapters.diffusers_unet import UNetAdapter

    adapters = (UNetAdapter(), DiTAdapter(), MMDiTAdapter())
    return next(adapter for adapter in adapters if name in adapter.table)


def denoisers() -> dict[str, type[Any]]:
    """Every model of diffusers' transformers and UNets."""
    from diffusers.models import transformers, unets
    from diffusers.models.modeling_utils import ModelMixin

    found = {**vars(transformers), **vars(unets)}
    return {n: found[n] for n in sorted(found) if _is_model(found[n], ModelMixin)}


def _is_model(value: Any, base: type[Any]) -> bool:
    return inspect.isclass(value) and issubclass(value, base)


def undescribed() -> dict[str, str | None]:
    """The other denoisers: why the generic rule does not take one, or None where it does."""
    from tgate_adapters.generic import GenericAdapter

    described = {model.backbone for model in MODELS}
    others = {n: made for n, made in denoisers().items() if n not in described}
    # It is asked about a model, and looks at the class alone.
    return {n: GenericAdapter().suits(made.__new__(made)) for n, made in others.items()}


def main(words: list[str]) -> None:
    """Count, and write the counts down."""
    import diffusers

    old = read()["rows"] if COUNTS.exists() else {}
    rows: dict[str, Any] = {}
    for model in MODELS:
        if words and not any(word in model.key for word in words):
            rows[model.key] = old[model.key]
            continue
        print(model.key, flush=True)
        rows[model.key] = counted(model)
    others = undescribed()
    made = {
        "diffusers": diffusers.__version__,
        "rows": rows,
        "generic": [n for n, why in others.items() if why is None],
        "left_out": {n: why for n, why in others.items() if why is not None},
    }
    COUNTS.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", nargs="*", required=True, metavar="WORD", help="rows to count")
    main(parser.parse_args().count)
