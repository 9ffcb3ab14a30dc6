"""Workers on this machine: this process itself, or several processes beside it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from tgate_plugins.study.dispatch import Died, Event, Finished, Made
from tgate_plugins.study.items import Item, Output
from tgate_plugins.study.worker import Worker


class Here:
    """One worker, in this process.

    Args:
        spec: of the study, as plain values.
    """

    size = 1

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._worker = Worker(spec)
        self._outputs: Iterator[Output] = iter(())

    def give(self, worker: int, item: Item) -> None:
        self._outputs = self._worker.run(item)

    def events(self) -> Iterable[Event]:
        output = next(self._outputs, None)
        return [Finished(0) if output is None else Made(0, output)]

    def close(self) -> None:
        self._outputs = iter(())


class Processes:
    """Several workers, each a fresh process; one that dies is replaced.

    Fresh ones, because a fork of a process that has used torch may hang.

    Args:
        spec: of the study, as plain values.
        size: how many.
    """

    def __init__(self, spec: Mapping[str, Any], size: int) -> None:
        self.size = size
        self._spec = dict(spec)
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def give(self, worker: int, item: Item) -> None:
        if worker not in self._workers:
            self._workers[worker] = self._start(worker)
        # It may have died while it had nothing to do: its end is heard of as that of any other.
        with contextlib.suppress(OSError):
            self._workers[worker][1].send(item)

    def _start(self, worker: int) -> tuple[BaseProcess, Connection]:
        mine, its = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(its, self._spec, worker), daemon=True, name=f"study-{worker}"
        )
        process.start()
        its.close()  # only the worker holds it now, so that its death closes it
        return process, mine

    def events(self) -> Iterator[Event]:
        by_connection = {connection: worker for worker, (_, connection) in self._workers.items()}
        for connection in wait(list(by_connection)):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                output = connection.recv()
            except (EOFError, OSError):
                yield Died(worker, self._bury(worker))
            else:
                yield Finished(worker) if output is None else Made(worker, output)

    def _bury(self, worker: int) -> str:
        """Take a dead worker out; how it died."""
        process, connection = self._workers.pop(worker)
        connection.close()
        process.join()
        return f"the worker process died three times over it (exit code {process.exitcode})"

    @property
    def pids(self) -> list[int | None]:
        """Of the processes that live."""
        return [process.pid for process, _ in self._workers.values()]

    def close(self) -> None:
        for process, connection in self._workers.values():
            connection.close()
            process.terminate()
        for process, _ in self._workers.values():
            process.join()
        self._workers.clear()


def serve(connection: Connection, spec: Mapping[str, Any], number: int) -> None:
    """What a worker process does: items come in, outputs go out, None after the last of an item."""
    # Ctrl-C goes to the whole group; the one that wrote the log says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(spec, number)
    while True:
        try:
            for output in worker.run(connection.recv()):
                connection.send(output)
            connection.send(None)
        except (EOFError, BrokenPipeError):  # the study is over, well or not
            return
