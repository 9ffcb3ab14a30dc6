"""The log of a study: one JSON object a line, only ever appended to; the one truth for going on.

A line is written and synced when its picture is safe on the disk. A killed writer leaves at most a
torn last line, which is cut off when the log is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from tgate_sampling.errors import OptionError

Record: TypeAlias = Mapping[str, Any]


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None where there is none, such as in the torn end of a log."""
    try:
        found = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else None


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a log, the first of each id that did not fail; [] where there is no log.

    Anything else in it is passed over: what it stood for is done again.
    """
    if not path.exists():
        return []
    records: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n"):
        record = parsed(line)
        if record is not None:
            before = records.get(record["id"])
            if before is None or (before.get("error") and not record.get("error")):
                records[record["id"]] = record
    return list(records.values())


def sound_length(data: bytes) -> tuple[int, bool]:
    r"""How much of a log is to be kept, and whether its last line lacks its newline.

    >>> sound_length(b'{"id": "a"}\n{"id": "b"}'), sound_length(b'{"id": "a"}\n{"i')
    ((23, True), (12, False))
    """
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return whole, False
    return (len(data), True) if parsed(data[whole:]) is not None else (whole, False)


class Log:
    """An open log; one process at a time.

    Args:
        path: of the file, made if it is not there; a torn end is cut off.

    Raises:
        OptionError: another process writes to it.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab+")
        try:
            _lock(self._file, path)
            self._repair()
        except BaseException:
            self._file.close()
            raise

    def _repair(self) -> None:
        self._file.seek(0)
        length, bare = sound_length(self._file.read())
        self._file.truncate(length)
        if bare:
            self._write(b"\n")

    def append(self, record: Record) -> None:
        """Write a record and wait until it is on the disk."""
        line = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        self._write(line.encode() + b"\n")

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, and let others in."""
        self._file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep a second study out; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows has none, and there nobody is kept out
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OptionError(
            f"another study is writing to {path.parent} right now: wait for it, or give another "
            "--out."
        ) from error
