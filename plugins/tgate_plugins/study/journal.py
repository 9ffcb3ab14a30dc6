"""What is finished goes to the disk, in an order that a crash at any point can be read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgate_plugins.study.folder import LOG
from tgate_plugins.study.items import Item, Output, Round
from tgate_plugins.study.log import Log, Record, read
from tgate_plugins.study.pictures import write_whole
from tgate_plugins.study.spec import StudySpec
from tgate_plugins.study.state import State
from tgate_plugins.study.ways import Way
from tgate_plugins.study.worker import failures


class Journal:
    """The log of a study, open, and what it says.

    Args:
        study: the spec.
        folder: of the study.
        retry: forget failures, so that they are tried again.
    """

    def __init__(self, study: StudySpec, folder: Path, *, retry: bool = False) -> None:
        self._subjects = {subject.name: subject for subject in study.subjects}
        self._folder = folder
        self._log = Log(folder / LOG)
        records = read(folder / LOG)
        #: Ids in the log, and whether what it says of them is that they failed.
        self._failed = {record["id"]: bool(record.get("error")) for record in records}
        self.state = State(r for r in records if self._counts(r, retry))
        self.hardware = [r["hardware"] for r in records if r["kind"] == "session"]

    def _counts(self, record: Record, retry: bool) -> bool:
        """Whether a record still stands."""
        if record["kind"] == "broken":  # a model that could not be loaded then may load now
            return False
        if record.get("error"):
            return not retry
        file = record.get("file")
        return file is None or (self._folder / file).is_file()

    def keep(self, output: Output) -> None:
        """Write an output: its file first, and its line when the file is safe."""
        record = output.record
        if output.file is not None and output.data is not None:
            write_whole(self._folder / output.file, output.data)
            record = {**record, "file": output.file}
        identity, failed = record["id"], bool(record.get("error"))
        # What is there is not written again, unless it went wrong then and is well now.
        if self._failed.get(identity, True) and not (failed and identity in self._failed):
            self._log.append(record)
            self._failed[identity] = failed
        self.state.add(record)

    def note_hardware(self, hardware: Record) -> None:
        """Say what this session runs on, if no session before ran on the same."""
        if hardware not in self.hardware:
            number = len(self.hardware)
            self._log.append({"kind": "session", "id": f"session/{number}", "hardware": hardware})
            self.hardware.append(dict(hardware))

    def give_up(self, item: Item, why: str) -> Iterator[Output]:
        """What is said of the first missing part of an item over which workers keep dying."""
        if isinstance(item, Round):
            missing = [spec for spec in item.specs if not self._has(item, spec)]
            item = replace(item, specs=tuple(missing[:1]))
        yield from failures(self._subjects[item.model], item, why)

    def _has(self, item: Round, spec: str) -> bool:
        label = Way.of(spec).label
        return self.state.picture(item.model, label, (item.prompt, item.seed)) is not None

    def close(self) -> None:
        """Close the log."""
        self._log.close()
