"""The same study on any engine, with workers that die in the middle, is the same study."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_helper
from tgate_plugins.study import folder as places
from tgate_plugins.study.dispatch import ATTEMPTS, Died, Event, Made, drive
from tgate_plugins.study.engines.local import Here, Processes
from tgate_plugins.study.items import Curves, Item, Output, Survey
from tgate_plugins.study.log import read

kit = load_helper("study/kit.py")


class Killing:
    """A pool, one of whose workers is killed when it has made its second picture.

    Args:
        pool: a real one.
    """

    def __init__(self, pool: Any) -> None:
        self._pool, self.made, self.deaths = pool, 0, 0
        self.size = pool.size

    def give(self, worker: int, item: Item) -> None:
        self._pool.give(worker, item)

    def events(self) -> Iterable[Event]:
        for event in self._pool.events():
            yield event
            self.deaths += isinstance(event, Died)
            if isinstance(event, Made) and event.output.record["kind"] == "picture":
                self.made += 1
                if self.made == 2:
                    os.kill(self._pool.pids[0], signal.SIGKILL)

    def close(self) -> None:
        self._pool.close()


def finish(spec: Any, folder: Path, make: Callable[[], Any]) -> tuple[Any, Killing]:
    """The study on a pool of which one worker is killed."""
    pools: list[Killing] = []

    def pool() -> Killing:
        pools.append(Killing(make()))
        return pools[0]

    return kit.run(spec, folder, pool), pools[0]


def test_two_processes_one_of_them_killed_give_the_table_of_one(whole: Any, tmp_path: Path) -> None:
    spec = whole.spec
    done, pool = finish(spec, tmp_path, lambda: Processes(spec.to_dict(), 2))
    assert kit.same_pictures(whole, done)
    assert pool.deaths == 1
    assert done.summary["complete"]
    # Nothing twice: each picture has one line.
    assert len(done.log.splitlines()) == len(read(tmp_path / places.LOG))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets that Ray leaves to the collector
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
@pytest.mark.filterwarnings("ignore::FutureWarning:ray.*")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ray_cluster_one_of_whose_actors_is_killed_gives_the_table_of_one_process(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    from tgate_plugins.study.engines import ray as engine

    monkeypatch.setattr(engine, "STORE", 80 * 2**20)
    spec = whole.spec
    done, pool = finish(spec, tmp_path, lambda: engine.Cluster(spec.to_dict(), 2))
    assert kit.same_pictures(whole, done)
    assert pool.deaths == 1
    assert done.summary["complete"]
    assert not engine.ray.is_initialized()


class Deadly:
    """A pool whose worker dies over one item, every time or a few times."""

    size = 1

    def __init__(self, times: int) -> None:
        self.times, self.given = times, []

    def give(self, worker: int, item: Item) -> None:
        self.given.append(item)

    def events(self) -> Iterable[Event]:
        self.times -= 1
        if self.times >= 0:
            return [Died(0, "gone")]
        return [Made(0, Output({"id": self.given[-1].id})), *kit.FINISHED]

    def close(self) -> None: ...


@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
def test_an_item_is_given_again_when_its_worker_dies(times: int) -> None:
    pool, kept = Deadly(times), []
    drive(pool, lambda: [] if kept else [Survey("a")], kept.append, _never)
    assert len(kept) == 1
    assert pool.given == [Survey("a")] * (times + 1)


def test_an_item_over_which_workers_keep_dying_is_given_up() -> None:
    pool, kept = Deadly(ATTEMPTS), []
    said = Output({"id": "no"})
    drive(pool, lambda: [] if kept else [Survey("a")], kept.append, lambda item, why: [said])
    assert kept == [said]
    assert pool.given == [Survey("a")] * ATTEMPTS


def _never(item: Item, why: str) -> Iterable[Output]:
    raise AssertionError("it was given up")


def test_a_worker_keeps_to_the_model_that_it_has_loaded() -> None:
    """Work of two models, offered by turns: the worker changes models once."""
    todo: list[Any] = [kind(name) for kind in (Survey, Curves) for name in "ab"]
    pool = Deadly(0)
    drive(pool, lambda: list(todo), lambda output: todo.remove(pool.given[-1]), _never)
    assert [item.model for item in pool.given] == ["a", "a", "b", "b"]


def test_the_order_in_which_it_is_drawn_changes_nothing(whole: Any, tmp_path: Path) -> None:
    """Rounds backwards, another method order inside them: the same table, in the spec's order."""

    class Backwards(Here):
        def give(self, worker: int, item: Item) -> None:
            specs = getattr(item, "specs", None)
            super().give(worker, replace(item, specs=specs[::-1]) if specs else item)

    done = kit.run(whole.spec, tmp_path, lambda: Backwards(whole.spec.to_dict()))
    assert kit.same_pictures(whole, done)
