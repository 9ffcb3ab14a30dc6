"""A study that stops anywhere goes on where it stopped: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import load_helper
from tgate_plugins.study import folder as places
from tgate_plugins.study.log import read
from tgate_sampling.errors import OptionError

kit = load_helper("study/kit.py")


def fake_pool(spec: Any, **options: Any) -> Any:
    return kit.FakePool(kit.FakeWorker(spec.subjects[0]), **options)


@pytest.fixture(scope="module")
def spec(tiny_spec: Callable[..., Any]) -> Any:
    return tiny_spec(seeds=2)


@pytest.fixture(scope="module")
def fake(spec: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study by a fake worker, and that worker."""
    pool = fake_pool(spec)
    return kit.run(spec, tmp_path_factory.mktemp("fake"), lambda: pool), pool.worker


@pytest.fixture
def copy(fake: Any) -> Iterator[Callable[[], Path]]:
    with tempfile.TemporaryDirectory() as where:
        places_ = iter(range(10**6))

        def make() -> Path:
            return Path(shutil.copytree(fake[0].folder, Path(where) / str(next(places_))))

        yield make


def test_in_one_go_everything_is_done_once(fake: Any, spec: Any) -> None:
    done, worker = fake
    assert done.summary["complete"]
    assert set(worker.drawn.values()) == {1}
    images = 2 * 2
    drawn = sum(name.startswith("images/") for name in worker.drawn)
    rivals = {m["rival"] for m in done.summary["models"][0]["methods"]} - {None, "ungated"}
    assert drawn == images * (1 + 3 + 1 + len(rivals)) == done.table.num_rows


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_log_cut_anywhere_goes_on_and_ends_the_same(fake: Any, data: st.DataObject) -> None:
    """Cut at a random byte, as a kill or a power cut may; the files are all there, or a few are."""
    done, _ = fake
    log = done.log
    at = data.draw(st.integers(0, len(log)))
    with tempfile.TemporaryDirectory() as where:
        folder = Path(shutil.copytree(done.folder, Path(where) / "cut"))
        (folder / places.LOG).write_bytes(log[:at])
        kept = {record["id"] for record in read(folder / places.LOG)}
        pool = fake_pool(done.spec)
        again = kit.run(done.spec, folder, lambda: pool)
        assert kit.same_pictures(done, again)
        assert again.summary["models"] == done.summary["models"]
        # A record that was whole is never made again, and one that was not is made once.
        lost = {record["id"] for record in read(done.folder / places.LOG)} - kept
        assert sum(pool.worker.drawn.values()) == len([i for i in lost if "session" not in i])
        assert set(pool.worker.drawn.values()) <= {1}
        ids = [json.loads(line)["id"] for line in again.log.splitlines()]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("lives", range(0, 27, 4))
def test_an_interrupt_after_any_output_loses_nothing(fake: Any, tmp_path: Path, lives: int) -> None:
    done, worker = fake
    first, second = fake_pool(done.spec, lives=lives), fake_pool(done.spec)
    with pytest.raises(KeyboardInterrupt):
        kit.run(done.spec, tmp_path, lambda: first)
    assert len(read(tmp_path / places.LOG)) == lives + 1  # and the line on the machine
    assert kit.same_pictures(done, kit.run(done.spec, tmp_path, lambda: second))
    # What the first had in hand when it was stopped was never finished.
    total = sum(first.worker.drawn.values()) + sum(second.worker.drawn.values())
    assert total == sum(worker.drawn.values()) + 1


def test_a_finished_study_asks_for_no_worker(fake: Any) -> None:
    def nobody() -> Any:
        raise AssertionError("a worker was asked for")

    done, _ = fake
    before = done.log
    assert kit.run(done.spec, done.folder, nobody).summary == done.summary
    assert done.log == before


def test_a_picture_that_was_deleted_is_drawn_again_and_no_other(
    fake: Any, copy: Callable[[], Path]
) -> None:
    done, _ = fake
    folder = copy()
    name = "images/tiny/deepcache,interval=2/1-0.png"
    (folder / name).unlink()
    pool = fake_pool(done.spec)
    assert kit.same_pictures(done, kit.run(done.spec, folder, lambda: pool))
    assert pool.worker.drawn == {name: 1}


def test_what_else_is_in_the_log_is_passed_over(fake: Any, copy: Callable[[], Path]) -> None:
    """Half a line in the middle, from a disk that lost a page: its picture is drawn again."""
    done, _ = fake
    folder = copy()
    lines = done.log.splitlines(keepends=True)
    lines[5] = b"\x00" * len(lines[5][:-1]) + b"\n"
    (folder / places.LOG).write_bytes(b"".join(lines))
    pool = fake_pool(done.spec)
    assert kit.same_pictures(done, kit.run(done.spec, folder, lambda: pool))
    assert sum(pool.worker.drawn.values()) == 1


def test_failures_are_kept_until_they_are_to_be_tried_again(spec: Any, tmp_path: Path) -> None:
    label = "deepcache interval=2"
    pool = kit.FakePool(kit.FakeWorker(spec.subjects[0], fails=frozenset({label})))
    failed = kit.run(spec, tmp_path, lambda: pool)
    assert (failed.method(label)["status"], failed.method(label)["failed"]) == ("failed", 4)
    assert failed.method(label)["why"] == "it broke"
    assert kit.run(spec, tmp_path, lambda: None).summary == failed.summary
    pool = fake_pool(spec)
    healed = kit.run(spec, tmp_path, lambda: pool, retry=True)
    assert (healed.method(label)["status"], healed.method(label)["pictures"]) == ("ran", 4)
    assert sum("deepcache" in name for name in pool.worker.drawn) == 4 + 1  # and its cost
    assert kit.run(spec, tmp_path, lambda: None).summary == healed.summary


def test_a_refused_method_is_a_row_with_its_reason_and_no_picture(
    spec: Any, tmp_path: Path
) -> None:
    label = "deepcache interval=2"
    pool = kit.FakePool(kit.FakeWorker(spec.subjects[0], refused=frozenset({label})))
    row = kit.run(spec, tmp_path, lambda: pool).method(label)
    assert (row["status"], row["why"], row["pictures"], row["rival"]) == ("refused", "no", 0, None)
    assert not any("deepcache" in name for name in pool.worker.drawn)


def test_two_studies_cannot_write_to_one_folder(fake: Any) -> None:
    pytest.importorskip("fcntl")
    done, _ = fake
    journal = kit.Journal(done.spec, done.folder)
    try:
        with pytest.raises(OptionError, match="another study is writing to"):
            kit.Journal(done.spec, done.folder)
    finally:
        journal.close()
