"""What a study knows so far: its log, by model and method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tgate_plugins.cli.bench import Cost
from tgate_plugins.study.log import Record
from tgate_plugins.study.names import picture_id
from tgate_plugins.study.ways import Way


@dataclass(frozen=True)
class Known:
    """What the survey of a model found.

    Args:
        record: of the log.
    """

    record: Record

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """The methods in the order of rows: ungated first, the converged run last."""
        return tuple(Way(**way) for way in self.record["ways"])

    @property
    def running(self) -> tuple[Way, ...]:
        """Those that run on this model."""
        return tuple(way for way in self.ways if way.why is None)

    def bare_cost(self, steps: int) -> Cost | None:
        """What the bare pipeline computes in so many steps; None for a number nobody asked for.

        A scheduler of order 2 makes about two calls a step, so calls are looked up.
        """
        calls = self.record["calls"].get(str(steps))
        if calls is None:
            return None
        unit = self.record["unit"]
        return Cost(unit["rows"], unit["macs"]).times(calls)


class State:
    """The log's records, sorted; later ones of an id are passed over, as on reading.

    Args:
        records: of the log.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.models: dict[str, Known] = {}
        #: Why a model cannot be studied at all.
        self.broken: dict[str, str] = {}
        self.pictures: dict[str, Record] = {}
        self.costs: dict[tuple[str, str], Record] = {}
        self.curves: dict[str, Record] = {}
        self.batches: dict[str, Record] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take a record in."""
        model = record.get("model", "")
        match record["kind"]:
            case "model":
                self.models.setdefault(model, Known(record))
            case "broken":
                self.broken.setdefault(model, record["error"])
            case "picture":
                self.pictures.setdefault(record["id"], record)
            case "cost":
                self.costs.setdefault((model, record["method"]), record)
            case "curves":
                self.curves.setdefault(model, record)
            case "batch":
                self.batches.setdefault(record["id"], record)

    def picture(self, model: str, label: str, image: tuple[int, int]) -> Record | None:
        """The record of one picture, if it was made or tried."""
        return self.pictures.get(picture_id(model, label, *image))

    def good(self, model: str, label: str, images: Iterable[tuple[int, int]]) -> list[Record]:
        """Records of the pictures that were made, in their order."""
        found = (self.picture(model, label, image) for image in images)
        return [record for record in found if record is not None and not record["error"]]

    def cost(self, record: Record, way: Way) -> Cost | None:
        """What a picture took: by its own report or count, else as much as the method's count."""
        if record["rows"] is not None:
            return Cost(record["rows"], record["macs"])
        known = self.models.get(record["model"])
        if way.part == "baseline" and known is not None:
            bare = known.bare_cost(record["steps"])
            if bare is not None:
                return bare
        counted = self.costs.get((record["model"], way.label))
        if counted is None or counted["rows"] is None:
            return None
        return Cost(counted["rows"], counted["macs"])
