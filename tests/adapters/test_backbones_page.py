"""docs/backbones.md says of every described backbone what its adapter finds there, and counts."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from tests.backbones import sites
from tests.backbones.models import MODELS, WARNINGS
from tests.conftest import load_helper
from tgate_adapters import diffusers_dit, diffusers_mmdit, diffusers_unet
from tgate_sampling.backbones import adapter_for

pytestmark = [pytest.mark.filterwarnings(text) for text in WARNINGS]

DOCS = Path(__file__).parents[2] / "docs"
DESCRIBED = {*diffusers_unet.TABLE, *diffusers_dit.TABLE, *diffusers_mmdit.TABLE}
TINY = [name for name in MODELS if name.partition(":")[0] in DESCRIBED]

#: Sites that read neither latents nor both: the conditioning alone. What is reused there is right.
OF_THE_CONDITION = {
    "I2VGenXLUNet": {"image_latents_temporal_encoder.attn1"},
    "Kandinsky5Transformer3DModel": {"text_transformer_blocks.0.self_attention"},
}

#: Sites that are left alone, by how many of a kind there are on the tiny backbone, and why.
LEFT_ALONE = {
    "WanAnimateTransformer3DModel": {"cross": 1},  # reads the face's motion
    "SD3Transformer2DModel:dual": {"self": 1},  # has only the text stream gated
    "ZImageTransformer2DModel": {"self": 1},  # the same, and refines the latents alone
    "Lumina2Transformer2DModel": {"self": 1},
    "Flux3Transformer2DModel": {"self": 1},
    "MotifVideoTransformer3DModel:cross": {"cross": 3},
}


@pytest.fixture(scope="module")
def made() -> Iterator[ModuleType]:
    """The module `docs/_generate/backbones.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("_generate.backbones")


@pytest.fixture(scope="module")
def counts(made: ModuleType) -> dict[str, Any]:
    """The counts that stand in docs/backbones.json."""
    found: dict[str, Any] = made.read()
    return found


@cache
def model(name: str) -> nn.Module:
    built: nn.Module = MODELS[name].build()
    return built


def described(name: str) -> dict[str, str]:
    """The attention sites of a tiny backbone and their kinds, as its adapter has them.

    Parts of a text stream are no attention: `tests/adapters/test_text_gate.py` is about these.
    """
    found = adapter_for(model(name)).sites(model(name))
    return {site.name: site.kind for site in found if site.kind != "text"}


def measured(name: str) -> dict[str, str]:
    """The same, found by perturbing live calls: of what can be kept."""
    found = sites.kinds(model(name), MODELS[name])
    return {site: kind for site, kind in found.items() if kind in ("cross", "self")}


@pytest.mark.parametrize("name", TINY)
def test_sites_are_those_that_perturbation_finds(name: str) -> None:
    """Every one is of the kind its adapter says, and every other one is named here."""
    ours, theirs = described(name), measured(name)
    extra = OF_THE_CONDITION.get(name.partition(":")[0], set())
    assert {site for site, kind in ours.items() if theirs.get(site) != kind} == extra
    left = Counter(kind for site, kind in theirs.items() if site not in ours)
    assert dict(left) == LEFT_ALONE.get(name, {})


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_kinds_on_the_page_are_those_of_the_tiny_backbone(
    name: str, made: ModuleType, counts: dict[str, Any]
) -> None:
    """Of every class: kinds, and how many of each there are for one of another."""
    tiny = Counter(site.kind for site in adapter_for(model(name)).sites(model(name)))
    rows = [counts["rows"][m.key] for m in made.MODELS if m.backbone == name]
    assert rows
    for row in rows:
        assert set(row["sites"]) == set(tiny)
        assert row["adapter"] == adapter_for(model(name)).name


def cells(page: str) -> list[list[str]]:
    """The lines of the page's first table."""
    lines = page.partition("| backbone |")[2].partition("<!-- [[[end]]] -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line]


def test_the_page_says_what_was_counted(made: ModuleType, counts: dict[str, Any]) -> None:
    """Every described class stands in the table; sites and percentages are the counts'."""
    lines = cells((DOCS / "backbones.md").read_text())
    assert {line[0].strip("`") for line in lines} == DESCRIBED
    by_key = {f"{line[0].strip('`')}: {line[1]}": line for line in lines}
    assert set(by_key) == set(counts["rows"])
    for key, row in counts["rows"].items():
        line = by_key[key]
        assert dict(_sites(line[3])) == row["sites"]
        saves = dict(zip(("guidance", *made.PARTS), line[7:], strict=True))
        assert {k: v for k, v in saves.items() if v != "-"} == {
            k: made.percent(v) for k, v in row.get("saves", {}).items()
        }


def _sites(cell: str) -> Iterator[tuple[str, int]]:
    for count, kind in re.findall(r"(\d+) (\w+)", cell):
        yield kind, int(count)


def test_no_count_is_behind_its_question(made: ModuleType, counts: dict[str, Any]) -> None:
    """A configuration that was changed in the generator is counted again before it is printed."""
    behind = [m.key for m in made.MODELS if counts["rows"][m.key]["asked"] != made.question(m)]
    assert behind == []


@pytest.mark.parametrize("name", ["DiT-XL/2 256", "Stable Audio Open", "PRX 512"])
def test_counting_again_gives_the_same(name: str, made: ModuleType, counts: dict[str, Any]) -> None:
    """To the last MAC, on three that take a second."""
    one = next(m for m in made.MODELS if m.name == name)
    assert made.counted(one) == counts["rows"][one.key]


def test_a_model_that_can_be_counted_is_not_called_uncountable(made: ModuleType) -> None:
    """Planted: a reason where there is none, and none where there is one."""
    models = {m.name: m for m in made.MODELS}
    for name, why in {"PRX 512": "of a reason", "Mochi 1": None}.items():
        with pytest.raises(ValueError, match=re.escape(name)):
            made.counted(made.Model(models[name].backbone, name, 8, why=why))


def test_what_nobody_takes_is_what_the_generic_rule_refuses(
    made: ModuleType, counts: dict[str, Any]
) -> None:
    """Every denoiser of diffusers is described, generic, or left out with the adapter's reason."""
    others, known = made.undescribed(), set(made.denoisers())
    assert known - set(others) == DESCRIBED & known
    # Two live beside their pipeline, or among the ControlNets.
    assert DESCRIBED - known == {"AudioLDM2UNet2DConditionModel", "UNetControlNetXSModel"}
    assert counts["generic"] == [n for n, why in others.items() if why is None]
    assert counts["left_out"] == {n: why for n, why in others.items() if why is not None}
    assert {"StableCascadeUNet", "UVit2DModel"} <= set(counts["left_out"])
    page = (DOCS / "backbones.md").read_text()
    assert [n for n in others if n not in page] == []


def test_configurations_are_those_of_the_published_rows(made: ModuleType) -> None:
    """`tests/explain` holds these to published MACs, so that ours are the same models."""
    published = load_helper("explain/test_published.py").CONFIGS
    names = {
        "SD-1.5": "sd-1.5",
        "SD-2.1": "sd-2.1",
        "SDXL": "sdxl",
        "LCM-SDXL": "lcm-sdxl",
        "PixArt-alpha": "pixart-alpha",
        "PixArt-Sigma": "pixart-sigma",
    }
    ours = {m.name: {"_class_name": m.backbone, **m.config} for m in made.MODELS}
    assert {n: ours[n] for n in names} == {n: published[key] for n, key in names.items()}


def test_percentages_are_of_a_guided_step(made: ModuleType) -> None:
    """Planted counts: half of it is guidance's, and nothing where there is no second branch."""
    rows = made.read()["rows"]
    assert {row["saves"].get("guidance") for row in rows.values() if "saves" in row} == {0.5, None}
    without = {
        r["branches"] for r in rows.values() if "guidance" not in r.get("saves", {"guidance": 0})
    }
    assert without == {"embedded", "batched, kept open", "separate, kept open"}
    assert made.percent(0.1234) == "12.3 %"
    assert made.tera(1.0148e15) == "1,010"
