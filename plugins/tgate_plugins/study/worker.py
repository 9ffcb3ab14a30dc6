"""A worker: holds one model at a time and does what it is given; the same in every engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tgate_plugins.cli.bench import say
from tgate_plugins.study import execute, fid
from tgate_plugins.study.items import Batch, Count, Curves, Item, Output, Round, Survey
from tgate_plugins.study.models import Loaded, load
from tgate_plugins.study.reading import checked
from tgate_plugins.study.spec import Subject
from tgate_plugins.study.ways import Way


class Worker:
    """Does items one after the other.

    Args:
        spec: of the study, as plain values.
        number: of the worker, from 0; several share out the cards of a machine.
    """

    def __init__(self, spec: Mapping[str, Any], number: int = 0) -> None:
        self._subjects = {s.name: s for s in checked(spec, "the study").subjects}
        self._number = number
        self._loaded: Loaded | None = None

    def run(self, item: Item) -> Iterator[Output]:
        """Do an item; each output is whole as soon as it comes."""
        subject = self._subjects[item.model]
        rest: Item | None = item
        while rest is not None:
            try:
                loaded = self._load(subject)
            except Exception as error:
                yield from failures(subject, rest, say(error))
                return
            done = 0
            try:
                for output in _do(loaded, rest):
                    done += 1
                    yield output
                return
            except execute.FailedError:
                # What failed may have left something behind, and nothing after it shall see that.
                self._loaded = None
                rest = _without_first(rest, done)
            except Exception as error:
                self._loaded = None
                yield from failures(subject, rest, say(error))
                return

    def _load(self, subject: Subject) -> Loaded:
        if self._loaded is None or self._loaded.subject != subject:
            self._loaded = None  # one model at a time: the old one goes before the new one comes
            self._loaded = load(subject, self._number)
        return self._loaded


def _do(loaded: Loaded, item: Item) -> Iterator[Output]:
    match item:
        case Survey():
            return execute.survey(loaded)
        case Round():
            return execute.round_of(loaded, item)
        case Count():
            return execute.count(loaded, item)
        case Curves():
            return execute.curves_of(loaded)
        case Batch():
            return fid.draw(loaded, item)


def _without_first(item: Item, done: int) -> Item | None:
    """What is left of an item of which so many outputs are there."""
    if isinstance(item, Round) and done < len(item.specs):
        return replace(item, specs=item.specs[done:])
    return None


def failures(subject: Subject, item: Item, why: str) -> Iterator[Output]:
    """The records that an item leaves where its model cannot be loaded, or its worker dies."""
    name = subject.name
    match item:
        case Survey():
            yield Output({"kind": "broken", "id": f"broken/{name}", "model": name, "error": why})
        case Round():
            for spec in item.specs:
                yield Output(execute.record_of(subject, Way.of(spec), item, error=why))
        case Count():
            yield Output(execute.cost_record(item, None, why))
        case Curves():
            yield Output(execute.curves_record(subject, {}, why))
        case Batch():
            yield Output(fid.record_of(item, why))
