"""Pictures for FID: thousands of captions a method, drawn in batches, of which features are kept.

FID is a property of a set, and needs a large one; the pictures themselves would only fill disks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_plugins.cli.bench import say
from tgate_plugins.study import metrics
from tgate_plugins.study.items import Batch, Output
from tgate_plugins.study.models import Loaded
from tgate_plugins.study.names import slug
from tgate_plugins.study.pictures import rounded
from tgate_plugins.study.rivals import rivals
from tgate_plugins.study.spec import Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import CONVERGED, Way, method_of
from tgate_zoo import scenes

#: Pictures of a batch.
SIZE: Final = 32

#: Seeds of these pictures begin here, so that none is a picture of the study's own.
FIRST_SEED: Final = 1_000_000


def drawn(count: int) -> list[scenes.Scene]:
    """Scenes to draw, by a fixed seed: half held out from training, half seen."""
    unseen = scenes.draw_scenes(count // 2, 0, held_out=True)
    return unseen + scenes.draw_scenes(count - count // 2, 0)


def ways_of(subject: Subject, state: State, known: Known) -> tuple[Way, ...]:
    """Methods that have a FID: all that drew something, and the runs that they must beat.

    The converged run is left out: it costs many times more than any other, and is no choice.
    """
    fewer = rivals(state, subject, known).values()
    ways = {way.label: way for way in (*known.running, *fewer) if way.name != CONVERGED}
    return tuple(w for w in ways.values() if state.good(subject.name, w.label, subject.images))


def batch_id(model: str, label: str, number: int) -> str:
    """Of a batch's record."""
    return f"batch/{slug(model)}/{slug(label)}/{number}"


def batch_file(model: str, label: str, number: int) -> str:
    """Of a batch's features, from the study's folder."""
    return f"fid/{slug(model)}/{slug(label)}/{number}.npz"


def batches(subject: Subject, state: State, known: Known) -> Iterator[Batch]:
    """What is still to be drawn of a model."""
    if not (subject.fid and known.record["zoo"]):
        return
    captions = [scene.caption for scene in drawn(subject.fid)]
    for way in ways_of(subject, state, known):
        for number, start in enumerate(range(0, len(captions), SIZE)):
            if batch_id(subject.name, way.label, number) not in state.batches:
                part = tuple(captions[start : start + SIZE])
                seeds = tuple(range(FIRST_SEED + start, FIRST_SEED + start + len(part)))
                yield Batch(subject.name, way.spec, number, part, seeds)


def draw(loaded: Loaded, item: Batch) -> Iterator[Output]:
    """The features of a batch's pictures."""
    try:
        data = to_bytes(metrics.features(_pictures(loaded, item)))
    except Exception as error:
        yield Output(record_of(item, say(error)))
        return
    label = Way.of(item.spec).label
    yield Output(record_of(item), batch_file(item.model, label, item.number), data)


def to_bytes(features: NDArray[Any]) -> bytes:
    """Features as a file."""
    file = io.BytesIO()
    np.savez_compressed(file, features=features)
    return file.getvalue()


def record_of(item: Batch, error: str | None = None) -> dict[str, Any]:
    """The log's line of a batch."""
    label = Way.of(item.spec).label
    return {
        "kind": "batch",
        "id": batch_id(item.model, label, item.number),
        "model": item.model,
        "method": label,
        "number": item.number,
        "count": 0 if error else len(item.captions),
        "error": error,
    }


def _pictures(loaded: Loaded, item: Batch) -> NDArray[np.float32]:
    """One call for the batch; one a picture where a method adapts to what it sees.

    Our own policies decide by the least converged sample of a batch, so they may be batched: a
    picture is then never drawn with less than it needs.
    """
    method = method_of(item.spec)
    step = 1 if method.adapts and method.part != "ours" else len(item.captions)
    found = []
    for start in range(0, len(item.captions), step):
        captions, seeds = item.captions[start : start + step], item.seeds[start : start + step]
        with method.apply(loaded.pipe, loaded.setting) as applied:
            result = loaded.pipe(
                prompt=list(captions),
                num_inference_steps=applied.steps,
                guidance_scale=applied.guidance_scale,
                generator=generators(seeds),
                output_type="np",
                **{**_batched(loaded, len(captions)), **applied.arguments},
            )
        found.append(np.asarray(result.images, dtype=np.float32))
    return rounded(np.concatenate(found))


def _batched(loaded: Loaded, count: int) -> dict[str, Any]:
    arguments = dict(loaded.subject.arguments)
    if "negative_prompt" in arguments:
        arguments["negative_prompt"] = [arguments["negative_prompt"]] * count
    return arguments


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One a picture, so that it does not depend on its batch."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
