"""Workers on a Ray cluster: one actor a device, wherever the cluster has one.

An actor that dies, or whose machine does, is replaced wherever there is room; what it had in hand
is asked for again by the study, less what was made of it before. (Ray's own restarts would begin an
item from its first picture, and answer that the actor is away while they last.) Pictures come back
by the cluster and are written where the study was started, so that the machines need to share
nothing but this library and the models.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tgate_plugins.study.dispatch import Died, Event, Finished, Made
from tgate_plugins.study.items import Item, Output
from tgate_plugins.study.worker import Worker
from tgate_sampling.errors import OptionError

#: As untyped as its decorators make it.
ray: Any = importlib.import_module("ray")

#: Bytes for pictures on their way, of a cluster that is started here.
STORE: Final = 256 * 2**20


class Actor:
    """A worker on some machine."""

    def __init__(self, spec: Mapping[str, Any], number: int) -> None:
        self._worker = Worker(spec, number)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()

    def run(self, item: Item) -> Iterator[Output]:
        """The item's outputs, each sent as soon as it is made."""
        yield from self._worker.run(item)


class Cluster:
    """Workers on a cluster.

    Args:
        spec: of the study, as plain values.
        size: how many; 0 for one a card, or one a core where there are no cards.
        address: of the cluster, as `ray.init` takes it; None for one that is started here.
    """

    def __init__(self, spec: Mapping[str, Any], size: int, address: str | None = None) -> None:
        self._mine = not ray.is_initialized()
        if self._mine:
            connect(address, size)
        found = ray.cluster_resources()
        cards, cores = int(found.get("GPU", 0)), int(found.get("CPU", 1))
        places = max(1, cards or cores)
        if size > places:  # the others would wait for ever
            raise OptionError(
                f"--workers {size} is more than the cluster has {'cards' if cards else 'cores'}, "
                f"{places}: give at most so many, or leave it out."
            )
        self.size = size or places
        self._spec = ray.put(dict(spec))
        # Ray lends an actor a card of its own; a process sees that one only, as number 0.
        needs = {"num_gpus": 1} if cards else {"num_cpus": 1}
        self._kind = ray.remote(**needs, max_restarts=0)(Actor)
        self._actors: dict[int, Any] = {}
        self._pids: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}

    def give(self, worker: int, item: Item) -> None:
        if worker not in self._actors:
            self._actors[worker] = self._kind.remote(self._spec, 0)
            self._pids[worker] = self._actors[worker].pid.remote()
        run = self._actors[worker].run.options(num_returns="streaming", max_task_retries=0)
        self._streams[worker] = run.remote(item)
        self._await(worker)

    @property
    def pids(self) -> list[int]:
        """Of the actors' processes, on their machines."""
        return [ray.get(self._pids[worker]) for worker in self._actors]

    def _await(self, worker: int) -> None:
        """Note the reference under which a worker's next output will come."""
        self._waiting[self._streams[worker]] = worker

    def events(self) -> Iterator[Event]:
        done, _ = ray.wait(list(self._waiting), num_returns=1)
        for stream in done:
            worker = self._waiting.pop(stream)
            yield self._next(worker)

    def _next(self, worker: int) -> Event:
        stream = self._streams[worker]
        try:
            output = ray.get(next(stream))
        except StopIteration:
            return Finished(worker)
        except ray.exceptions.RayTaskError:
            raise  # a mistake in our own code, told from where it was made
        except ray.exceptions.RayError as error:  # the actor, its machine or an object is lost
            return Died(worker, self._bury(worker, error))
        self._await(worker)
        return Made(worker, output)

    def _bury(self, worker: int, error: Exception) -> str:
        """Let a dead actor go, so that the worker's next item starts another; how it died."""
        ray.kill(self._actors.pop(worker))
        return f"its Ray actor died three times over it ({type(error).__name__})"

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._waiting.clear()
        if self._mine:
            ray.shutdown()


def connect(address: str | None, size: int = 0) -> None:
    """Join a cluster, or start one here with room for so many workers.

    Raises:
        OptionError: there is no cluster at that address.
    """
    options: dict[str, Any] = {"address": address}
    if address is None:
        cores = max(size, os.cpu_count() or 1)
        options = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE}
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"--address {address!r} is no Ray cluster that can be joined "
            f"({' '.join(str(error).split())[:120]}): start one with `ray start --head`, and give "
            "the address that it prints, or leave --address out."
        ) from error
