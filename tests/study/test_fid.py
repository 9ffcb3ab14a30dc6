"""FID in a study: seeded captions in batches, of which features are kept; resumable as the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import load_helper
from tgate_plugins.study import distances, fid, metrics, models
from tgate_plugins.study.items import Batch
from tgate_plugins.study.journal import Journal
from tgate_plugins.study.plan import ready
from tgate_plugins.study.state import State
from tgate_zoo import scenes

kit = load_helper("study/kit.py")

COUNT = 2000


class ZooWorker(kit.FakeWorker):
    """A fake worker whose model is of the zoo, as far as FID is concerned."""

    def run(self, item: Any) -> Any:
        if not isinstance(item, Batch):
            yield from super().run(item)
            return
        self.drawn[item.id] += 1
        label = fid.Way.of(item.spec).label
        name = fid.batch_file(item.model, label, item.number)
        rng = np.random.default_rng([item.number, label == "ungated"])
        found = rng.normal(label != "ungated", 1, (len(item.captions), 8))
        yield kit.Output(fid.record_of(item), name, fid.to_bytes(found))

    def _survey(self) -> dict[str, Any]:
        return {**super()._survey(), "zoo": True}


@pytest.fixture(scope="module")
def drawn(tiny_spec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    spec = tiny_spec(fid=COUNT, methods=["ours"])
    folder = tmp_path_factory.mktemp("fid")
    pool = kit.FakePool(ZooWorker(spec.subjects[0]))
    kit.claim(folder, spec)
    journal = Journal(spec, folder)
    kit.draw(spec, journal, lambda: pool)
    yield spec, folder, journal.state, pool.worker
    journal.close()


def test_scenes_are_half_held_out_and_the_same_every_time() -> None:
    found = fid.drawn(COUNT)
    assert [scene.held_out for scene in found] == [True] * 1000 + [False] * 1000
    assert found == fid.drawn(COUNT)


def test_every_method_but_the_converged_draws_every_batch_once(drawn: Any) -> None:
    spec, _, state, worker = drawn
    batches = {name for name in worker.drawn if name.startswith("batch/")}
    methods = {name.split("/")[2] for name in batches}
    assert methods == {"ungated", "ours", "fewer_steps:steps=1"}
    assert len(batches) == len(methods) * -(-COUNT // fid.SIZE)
    assert set(worker.drawn.values()) == {1}
    assert not list(ready(spec, state))


def test_distances_are_of_the_features_that_were_kept(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, folder, state, _ = drawn
    real = np.random.default_rng(5).normal(0, 1, (COUNT, 8))
    monkeypatch.setattr(distances, "rendered", lambda count: real)
    known = state.models["tiny"]
    found = distances.of_model(spec.subjects[0], state, known, folder)
    assert found["ungated"]["to_ungated"] == pytest.approx(0, abs=1e-9)
    # Means that differ by one in each of eight dimensions.
    assert found["ours"]["to_ungated"] == pytest.approx(8, rel=0.1)
    assert found["ours"]["classifier"] == pytest.approx(8, rel=0.1)
    assert found["ungated"]["classifier"] < 0.2
    assert {one["images"] for one in found.values()} == {COUNT}


def test_without_the_font_there_is_a_reason_and_the_other_distance(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(count: int) -> Any:
        raise scenes.FontMissingError("the font is not there")

    spec, folder, state, _ = drawn
    monkeypatch.setattr(distances, "rendered", missing)
    found = distances.of_model(spec.subjects[0], state, state.models["tiny"], folder)["ours"]
    assert found["classifier"] is None
    assert found["why"] == "the font is not there"
    assert found["to_ungated"] > 1


def test_a_missing_batch_is_a_reason_and_no_number(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "rendered", lambda count: np.eye(COUNT, 8))
    spec, folder, state, _ = drawn
    less = State([])
    less.models, less.pictures = state.models, state.pictures
    less.batches = {k: v for k, v in state.batches.items() if not k.endswith("/ours/3")}
    found = distances.of_model(spec.subjects[0], less, state.models["tiny"], folder)
    assert found["ours"]["classifier"] is None
    assert "not all of its pictures are drawn yet" in found["ours"]["why"]


def test_a_picture_does_not_hang_on_its_batch(
    tiny_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four captions at once, and one by one: the same pictures, to a level of eight bits."""
    seen: list[Any] = []
    monkeypatch.setattr(metrics, "features", lambda images: seen.append(images) or images[:, 0, 0])
    loaded = models.load(tiny_spec().subjects[0])
    whole = Batch("tiny", "ours", 0, ("a cat", "a dog", "a fox", "an owl"), (1, 2, 3, 4))
    (output,) = fid.draw(loaded, whole)
    assert (output.record["count"], output.record["error"]) == (4, None)
    for i in range(4):
        one = replace(whole, captions=whole.captions[i : i + 1], seeds=whole.seeds[i : i + 1])
        list(fid.draw(loaded, one))
        assert np.abs(seen[-1][0] - seen[0][i]).max() <= 1 / 255 + 1e-6


def test_a_batch_that_fails_is_a_record(tiny_spec: Callable[..., Any], tmp_path: Path) -> None:
    broken = models.Loaded(object(), tiny_spec().subjects[0])
    (output,) = fid.draw(broken, Batch("tiny", "ungated", 0, ("a cat",), (1,)))
    assert (output.record["count"], output.file) == (0, None)
    assert "TypeError" in output.record["error"]
