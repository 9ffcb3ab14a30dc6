"""Which pictures the page shows, and how each is put into it once."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image

from tgate_plugins.study.report.numbers import plain
from tgate_plugins.study.report.values import DECISIVE, Method, Model, Picture, Study

#: Rows of a grid: the issue asks for five pictures a model.
ROWS: Final = 5
#: Longer side of a picture in the page; larger ones are made smaller, smoothly, and it is said.
LARGEST: Final = 384
#: Pictures up to this side are enlarged on screen with their pixels left square.
TINY: Final = 128


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture in the page's store."""

    number: int
    width: int
    height: int

    @property
    def tiny(self) -> bool:
        """Its pixels are to be seen as squares."""
        return max(self.width, self.height) <= TINY


@dataclass
class Store:
    """The pictures of a page, each once.

    Args:
        folder: of the study.
        sources: data URIs, by number.
        shrunk: some picture is shown smaller than it is.
    """

    folder: Path
    sources: list[str] = field(default_factory=list)
    shrunk: bool = False
    _shown: dict[str, Shown | None] = field(default_factory=dict)

    def show(self, file: str | None) -> Shown | None:
        """Put a file into the page; None where it is missing or no picture."""
        if file is None:
            return None
        if file not in self._shown:
            self._shown[file] = self._add(self.folder / file)
        return self._shown[file]

    def _add(self, path: Path) -> Shown | None:
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except OSError:  # missing, or half written by a study that was killed
            return None
        if max(picture.size) > LARGEST:
            picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
            self.shrunk = True
        written = io.BytesIO()
        picture.save(written, "PNG", optimize=True)
        coded = base64.b64encode(written.getvalue()).decode("ascii")
        self.sources.append(f"data:image/png;base64,{coded}")
        return Shown(len(self.sources) - 1, picture.width, picture.height)


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell of a grid: a picture beside the two it is compared with, or why there is none."""

    method: Method
    prompt: str
    seed: str
    picture: Shown | None
    ungated: Shown | None
    converged: Shown | None
    values: Mapping[str, float]
    why: str = ""

    @property
    def fidelity(self) -> dict[str, float]:
        """What the comparison says of it."""
        known = {k: self.values[k] for k in DECISIVE if k in self.values}
        return {k: round(v, 2) for k, v in known.items() if math.isfinite(v)}

    @property
    def caption(self) -> str:
        """Its fidelity, as printed under it."""
        found = self.values.get(f"{self.target}.psnr")
        if found is None:
            return ""
        return f"{plain(found, 1)} dB" if math.isfinite(found) else "identical"

    @property
    def target(self) -> str:
        """Which picture the caption speaks of: the converged one where there is one."""
        return "converged" if self.converged else "ungated"


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and seed, or each method's own worst picture."""

    title: str
    detail: str
    tiles: tuple[Tile, ...]


def grid(study: Study, model: Model, methods: tuple[Method, ...], store: Store) -> tuple[Row, ...]:
    """The first prompts, not the best; then the worst picture of each method, where known."""
    rows = []
    for key in keys(model)[:ROWS]:
        tiles = tuple(_tile(study, model, m, key, store) for m in methods)
        rows.append(Row(_prompt(study, model, key), f"seed {_seed(key)}", tiles))
    worst = {m.label: worst_key(study, model, m) for m in methods}
    if any(worst.values()) and len(keys(model)) > ROWS:
        tiles = tuple(_tile(study, model, m, worst[m.label], store) for m in methods)
        rows.append(Row("each method's worst picture", "lowest PSNR of all", tiles))
    return tuple(rows)


def keys(model: Model) -> list[str]:
    """All `<prompt number>-<seed>` of a model: every prompt's first seed, then the second ..."""
    known = {key for m in model.methods for key in (m.images or {})}
    order = {str(seed): i for i, seed in enumerate(model.seeds)}
    return sorted(known, key=lambda k: (order.get(_seed(k), len(order)), _number(k), _seed(k)))


def worst_key(study: Study, model: Model, method: Method) -> str | None:
    """Of the picture furthest from its converged one, else from its ungated one."""
    for measure in DECISIVE:
        found = {
            key: picture.values[measure]
            for key, picture in _pictures(study, model, method)
            if measure in picture.values
        }
        if found:
            return min(found, key=lambda k: (found[k], k))
    return None


def _pictures(study: Study, model: Model, method: Method) -> Iterator[tuple[str, Picture]]:
    for key in method.images or {}:
        if picture := study.pictures.get((model.name, method.label, key)):
            yield key, picture


def _tile(study: Study, model: Model, method: Method, key: str | None, store: Store) -> Tile:
    def image(of: Method | None) -> Shown | None:
        return store.show((of.images or {}).get(key)) if of is not None and key else None

    found = study.pictures.get((model.name, method.label, key)) if key else None
    picture = image(method)
    error = found.error if found else None
    why = "" if picture else method.why or error or ("no picture" if key else "not measured")
    return Tile(
        method,
        _prompt(study, model, key) if key else "",
        _seed(key) if key else "",
        picture,
        image(model.ungated),
        image(model.converged),
        found.values if found else {},
        why,
    )


def _prompt(study: Study, model: Model, key: str) -> str:
    for method in model.methods:
        if found := study.pictures.get((model.name, method.label, key)):
            return found.prompt
    numbers = {_number(k) for k in keys(model)}
    place = _number(key) - (0 if 0 in numbers else 1)
    return model.prompts[place] if 0 <= place < len(model.prompts) else f"prompt {_number(key)}"


def _number(key: str) -> int:
    number = key.partition("-")[0]
    return int(number) if number.isdigit() else -1


def _seed(key: str) -> str:
    return key.partition("-")[2]
