"""FID of each method: against real renders, and against the ungated pictures."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgate_plugins.study import metrics
from tgate_plugins.study.fid import SIZE, batch_file, batch_id, drawn, ways_of
from tgate_plugins.study.spec import Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import Way
from tgate_zoo import scenes


def of_model(subject: Subject, state: State, known: Known, folder: Path) -> dict[str, Any]:
    """By method label: both distances, how many pictures they are of, and why one is missing."""
    why = None
    if not subject.fid:
        why = "no pictures were drawn for it: --fid 2000 does"
    elif not known.record["zoo"]:
        why = "it needs captions that our classifier reads, and those only zoo models draw"
    if why:
        return {way.label: _answer(why=why) for way in known.running}
    base = _features(subject, state, known.ways[0], folder)
    return {
        way.label: _distances(subject, state, way, folder, base)
        for way in ways_of(subject, state, known)
    }


def _answer(
    classifier: float | None = None,
    to_ungated: float | None = None,
    images: int = 0,
    why: str | None = None,
) -> dict[str, Any]:
    return {"classifier": classifier, "to_ungated": to_ungated, "images": images, "why": why}


def _distances(
    subject: Subject, state: State, way: Way, folder: Path, base: NDArray[Any] | str
) -> dict[str, Any]:
    mine = _features(subject, state, way, folder)
    if isinstance(mine, str):
        return _answer(why=mine)
    found: dict[str, Any] = {"images": len(mine)}
    if not isinstance(base, str):
        found["to_ungated"] = metrics.fid(mine, base)
    try:
        found["classifier"] = metrics.fid(mine, rendered(subject.fid))
    except scenes.FontMissingError as error:
        found["why"] = str(error)
    return _answer(**found)


def _features(subject: Subject, state: State, way: Way, folder: Path) -> NDArray[Any] | str:
    """A method's features in the order of captions; or why they are not whole."""
    found = []
    for number in range(-(-subject.fid // SIZE)):
        record = state.batches.get(batch_id(subject.name, way.label, number))
        if record is None:
            return "not all of its pictures are drawn yet: run the same command again"
        if record["error"]:
            return f"a batch of its pictures failed ({record['error']})"
        with np.load(folder / batch_file(subject.name, way.label, number)) as file:
            found.append(file["features"])
    return np.concatenate(found)


@functools.cache
def rendered(count: int) -> NDArray[Any]:
    """Features of real renders of the same scenes.

    Raises:
        FontMissingError: the font is not here.
    """
    glyphs, rng = scenes.load_glyphs(), random.Random(0)
    images = [scenes.render(scene, rng, glyphs) for scene in drawn(count)]
    whole = np.stack(images).astype(np.float32) / np.float32(255)
    found: NDArray[Any] = metrics.features(whole)
    return found
