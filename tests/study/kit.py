"""Studies in tests: run the parts, count what is drawn, compare what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tgate_plugins.cli.bench import Cost
from tgate_plugins.study import folder as places
from tgate_plugins.study.dispatch import Event, Finished, Made
from tgate_plugins.study.engines.local import Here
from tgate_plugins.study.execute import cost_record, curves_record, record_of
from tgate_plugins.study.folder import claim
from tgate_plugins.study.items import Count, Curves, Item, Output, Round, Survey
from tgate_plugins.study.journal import Journal
from tgate_plugins.study.names import picture_file
from tgate_plugins.study.pictures import to_png
from tgate_plugins.study.results import TIMES
from tgate_plugins.study.run import draw, publish
from tgate_plugins.study.spec import StudySpec, Subject
from tgate_plugins.study.ways import Way, all_of
from tgate_sampling.method import Setting


@dataclass(frozen=True)
class Done:
    """What a study left."""

    spec: StudySpec
    folder: Path
    summary: dict[str, Any]

    @property
    def log(self) -> bytes:
        return (self.folder / places.LOG).read_bytes()

    @property
    def table(self) -> Any:
        return pq.read_table(self.folder / places.TABLE)

    def method(self, label: str) -> dict[str, Any]:
        return next(m for m in self.summary["models"][0]["methods"] if m["label"] == label)


#: The end of an item.
FINISHED = (Finished(0),)


def run(
    spec: StudySpec, folder: Path, pool: Callable[[], Any] | None = None, *, retry: bool = False
) -> Done:
    """A study without its page, which is another's business."""
    claim(folder, spec)
    journal = Journal(spec, folder, retry=retry)
    try:
        draw(spec, journal, pool or (lambda: Here(spec.to_dict())))
        return Done(spec, folder, publish(spec, folder, journal))
    finally:
        journal.close()


def same_pictures(a: Done, b: Done) -> bool:
    """Whether two studies' tables are the same bit for bit, times aside, and so are the files."""
    mine, theirs = (done.table.drop_columns(list(TIMES)) for done in (a, b))
    same = mine.schema == theirs.schema and same_bits(mine.to_pydict(), theirs.to_pydict())
    files = [name for name in mine.column("file").to_pylist() if name]
    return same and all((a.folder / f).read_bytes() == (b.folder / f).read_bytes() for f in files)


def same_bits(mine: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> bool:
    """Equality in which a NaN equals itself."""

    def bits(values: list[Any]) -> list[Any]:
        return [np.float64(v).tobytes() if isinstance(v, float) else v for v in values]

    return {k: bits(v) for k, v in mine.items()} == {k: bits(v) for k, v in theirs.items()}


@dataclass
class FakeWorker:
    """Draws noise by name in no time, and counts what it draws.

    Args:
        subject: the one model that it knows.
        fails: labels of methods that fail.
        refused: labels of methods that cannot run.
    """

    subject: Subject
    fails: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    drawn: Counter[str] = field(default_factory=Counter)

    def run(self, item: Item) -> Iterator[Output]:
        match item:
            case Survey():
                self.drawn["survey"] += 1
                yield Output(self._survey())
            case Round():
                for spec in item.specs:
                    yield self._picture(item, Way.of(spec))
            case Count():
                self.drawn[item.id] += 1
                yield Output(cost_record(item, Cost(2.5, 250.0)))
            case Curves():
                self.drawn["curves"] += 1
                yield Output(curves_record(self.subject, {"a site": [None, 0.5, None]}))

    def _survey(self) -> dict[str, Any]:
        subject = self.subject
        setting = Setting(subject.steps, subject.guidance_scale)
        ways = all_of(subject.methods or (), subject.converged_steps, None, setting)
        told = [w.to_dict() | {"why": "no" if w.label in self.refused else None} for w in ways]
        steps = {*range(1, subject.steps + 1), subject.converged_steps}
        return {
            "kind": "model",
            "id": f"model/{subject.name}",
            "model": subject.name,
            "pipeline": "Fake",
            "scheduler": "Fake",
            "zoo": False,
            "ways": told,
            "unit": {"rows": 2.0, "macs": 200.0},
            "calls": {str(n): n for n in steps},
        }

    def _picture(self, item: Round, way: Way) -> Output:
        name = picture_file(item.model, way.label, item.prompt, item.seed)
        self.drawn[name] += 1
        if way.label in self.fails:
            return Output(record_of(self.subject, way, item, error="it broke"))
        cost = Cost(3.0, 300.0) if way.part == "ours" else None
        record = record_of(self.subject, way, item, seconds=1.0, beside=2.0, cost=cost)
        noise = np.random.default_rng(list(name.encode())).random((8, 8, 3))
        return Output(record, name, to_png(noise))


@dataclass
class FakePool:
    """One fake worker; it stops dead after so many outputs, if it is told to."""

    worker: FakeWorker
    lives: float = float("inf")
    size: int = 1

    def give(self, worker: int, item: Item) -> None:
        self._outputs = self.worker.run(item)

    def events(self) -> list[Event]:
        output = next(self._outputs, None)
        if output is None:
            return [Finished(0)]
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt
        return [Made(0, output)]

    def close(self) -> None:
        pass
