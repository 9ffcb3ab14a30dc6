"""From log and pictures to a table: one row a picture, with everything measured of it.

Rows are in the spec's order, whatever the order in which they were drawn, so that the same study
gives the same file on any engine. Only `seconds` and `beside` differ from run to run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tgate_plugins.study import metrics
from tgate_plugins.study.log import Record
from tgate_plugins.study.names import picture_file
from tgate_plugins.study.pictures import load
from tgate_plugins.study.rivals import rivals
from tgate_plugins.study.spec import StudySpec, Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import CONVERGED, UNGATED, Way

Image = tuple[int, int]

#: Columns that are times: all others are the same in every run of the same study.
TIMES: Final = ("seconds", "beside")

_PLAIN: Final = (
    ("model", pa.string()),
    ("method", pa.string()),
    ("prompt_number", pa.int64()),
    ("prompt", pa.string()),
    ("seed", pa.int64()),
    ("steps", pa.int64()),
    ("guidance_scale", pa.float64()),
    ("file", pa.string()),
    ("seconds", pa.float64()),
    ("beside", pa.float64()),
    ("rows", pa.float64()),
    ("macs", pa.float64()),
    ("error", pa.string()),
)

#: Pictures that are measured at once: enough to be quick, few enough for large pictures.
_AT_ONCE: Final = 16


@dataclass
class Measured:
    """A method on a model with all that was made and measured.

    Args:
        way: the method.
        records: by image (prompt number, seed), failures included.
        values: by measure, then by image.
    """

    way: Way
    records: dict[Image, Record]
    values: dict[str, dict[Image, float]] = field(default_factory=dict)

    @property
    def good(self) -> list[Image]:
        """Images that were made."""
        return [image for image, record in self.records.items() if not record["error"]]


def rows_of(subject: Subject, state: State, known: Known) -> tuple[Way, ...]:
    """All methods of a model that have a row of their own, refused ones included."""
    fewer = rivals(state, subject, known).values()
    return tuple({way.label: way for way in (*known.ways, *fewer)}.values())


def measure(
    subject: Subject, state: State, known: Known, folder: Path, wanted: Sequence[str] | None
) -> list[Measured]:
    """Measure all pictures of a model.

    Args:
        subject: the model.
        state: the log.
        known: what the survey found.
        folder: of the study.
        wanted: measures; None for all.
    """
    found = []
    for way in rows_of(subject, state, known):
        records = {
            image: record
            for image in subject.images
            if (record := state.picture(subject.name, way.label, image)) is not None
        }
        found.append(Measured(way, records))
    references = {
        name: one for one in found for name in (UNGATED, CONVERGED) if one.way.name == name
    }
    for one in found:
        for name, reference in references.items():
            if one is not reference:
                for key, values in _paired(subject, folder, one, reference).items():
                    one.values[f"{name}.{key}"] = values
        # The classifier knows the zoo's own size only.
        zoo = bool(known.record["zoo"]) and subject.size is None
        one.values |= _alone(subject, folder, one, zoo)
        if wanted is not None:
            one.values = {k: v for k, v in one.values.items() if k.rpartition(".")[2] in wanted}
    return found


def _paired(
    subject: Subject, folder: Path, one: Measured, reference: Measured
) -> dict[str, dict[Image, float]]:
    found: dict[str, dict[Image, float]] = {}
    there = set(reference.good)
    for part in _parts([image for image in one.good if image in there]):
        theirs = _load(subject, folder, reference.way, part)
        _note(found, part, metrics.paired(_load(subject, folder, one.way, part), theirs))
    return found


def _alone(
    subject: Subject, folder: Path, one: Measured, zoo: bool
) -> dict[str, dict[Image, float]]:
    found: dict[str, dict[Image, float]] = {}
    for part in _parts(one.good):
        captions = [subject.prompts[prompt] for prompt, _ in part]
        _note(found, part, metrics.alone(_load(subject, folder, one.way, part), captions, zoo))
    return found


def _parts(images: Sequence[Image]) -> Iterator[Sequence[Image]]:
    for start in range(0, len(images), _AT_ONCE):
        yield images[start : start + _AT_ONCE]


def _note(
    found: dict[str, dict[Image, float]], images: Sequence[Image], values: Mapping[str, Any]
) -> None:
    for key, column in values.items():
        of_key = found.setdefault(key, {})
        of_key.update(zip(images, np.asarray(column, np.float64).tolist(), strict=True))


def _load(subject: Subject, folder: Path, way: Way, images: Sequence[Image]) -> NDArray[np.float32]:
    return load([folder / picture_file(subject.name, way.label, *image) for image in images])


def table(study: StudySpec, state: State, measured: Mapping[str, Sequence[Measured]]) -> pa.Table:
    """One row a picture, failed ones included.

    Args:
        study: the spec.
        state: the log.
        measured: by model.
    """
    rows = []
    for subject in study.subjects:
        for one in measured.get(subject.name, ()):
            rows += [_row(subject, state, one, image) for image in one.records]
    names = dict.fromkeys(key for ones in measured.values() for one in ones for key in one.values)
    schema = pa.schema([*_PLAIN, *((name, pa.float64()) for name in sorted(names))])
    return pa.Table.from_pylist(rows, schema=schema)


def _row(subject: Subject, state: State, one: Measured, image: Image) -> dict[str, Any]:
    record = one.records[image]
    cost = None if record["error"] else state.cost(record, one.way)
    return {
        "model": subject.name,
        "method": one.way.label,
        "prompt_number": image[0],
        "prompt": subject.prompts[image[0]],
        "seed": image[1],
        "steps": record["steps"],
        "guidance_scale": record["guidance_scale"],
        "file": None if record["error"] else picture_file(subject.name, one.way.label, *image),
        "seconds": record["seconds"],
        "beside": record["beside"],
        "rows": cost.rows if cost else None,
        "macs": cost.macs if cost else None,
        "error": record["error"],
        **{key: values.get(image) for key, values in one.values.items()},
    }


def as_bytes(found: pa.Table) -> bytes:
    """The table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(found, file)
    return file.getvalue()
