"""One piece of work on a real small pipeline: pictures, costs, rivals, curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_plugins.study import curves, execute, models
from tgate_plugins.study.engines.local import Here
from tgate_plugins.study.items import Round
from tgate_plugins.study.log import read
from tgate_sampling.cost import CostModel

kit = load_helper("study/kit.py")


@pytest.fixture(scope="module")
def loaded(tiny_spec: Callable[..., Any]) -> Any:
    return models.load(tiny_spec().subjects[0])


def pictures(done: Any) -> dict[tuple[str, int, int], Any]:
    records = read(done.folder / "log.jsonl")
    found = [r for r in records if r["kind"] == "picture"]
    return {(r["method"], r["prompt"], r["seed"]): r for r in found}


def test_each_picture_is_one_call_of_the_pipeline(
    tiny_spec: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And beside them: a warm-up, three counts or curves a model, and a clock for late rounds."""
    calls: list[str] = []
    drawn = diffusers.StableDiffusionPipeline.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["prompt"])
        return drawn(self, *args, **kwargs)

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "__call__", counted)
    done = kit.run(tiny_spec(), tmp_path)
    late = {label for label, *_ in pictures(done) if label.startswith("fewer_steps")}
    clocks = 2 if late else 0
    beside = 1 + 1 + 1 + 1  # warm-up, what a bare call costs, what deepcache costs, curves
    assert len(calls) == len(pictures(done)) + clocks + beside


def test_an_ungated_picture_is_the_pipelines_own(whole: Any, tiny: Path, loaded: Any) -> None:
    pipe = models.load(replace(loaded.subject, steps=2)).pipe
    own = pipe(
        "a dog",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pil",
    ).images[0]
    from PIL import Image

    with Image.open(whole.folder / "images/tiny/ungated/1-0.png") as stored:
        assert np.array_equal(np.asarray(stored), np.asarray(own))


def test_a_gated_picture_says_what_was_closed_and_what_it_took(whole: Any, loaded: Any) -> None:
    record = pictures(whole)["ours policy=fixed_step gate_step=1", 0, 0]
    with tg.gate(loaded.pipe, "fixed_step", gate_step=1) as gating:
        models.call(loaded, "a cat", 0, 3, 4.0)
    assert record["closed"] == {"guidance": [1, 2], "cross": [1, 2]}
    assert record["rows"] == gating.report.rows[0] == 4
    assert record["macs"] == gating.report.macs.done.true
    assert record["seconds"] > 0 < record["beside"]


def test_every_method_has_the_rival_of_most_steps_that_costs_no_more(whole: Any) -> None:
    methods = {m["label"]: m for m in whole.summary["models"][0]["methods"]}
    step = methods["ungated"]["macs"] / 3
    contenders = [m for m in methods.values() if m["part"] in ("ours", "related")]
    assert len(contenders) == 3
    for method in contenders:
        rival = methods[method["rival"]]
        assert rival["macs"] <= method["macs"] * (1 + 1e-9)
        assert rival["macs"] + step > method["macs"]
        assert rival["pictures"] == 2
        assert "converged.psnr" in method["over_rival"]
    assert methods["ungated"]["rival"] is None


def test_shapes_are_counted_once_a_model_and_not_once_a_picture(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[object] = []
    count = CostModel._count

    def counted(self: Any, *args: Any) -> Any:
        counts.append(args)
        return count(self, *args)

    monkeypatch.setattr(CostModel, "_count", counted)
    fresh = models.Loaded(loaded.pipe, loaded.subject)
    for prompt in (0, 1):
        list(execute.round_of(fresh, Round("tiny", prompt, 0, ("ungated", "ours"))))
    assert len(counts) == len(fresh.footprints) > 0


def test_curves_are_the_relative_change_of_each_sites_output(loaded: Any) -> None:
    """Against hooks on the attention modules themselves: the worse of the two branches."""
    found = curves.measure(loaded, "a cat", 0)
    unet = loaded.pipe.unet
    outputs: dict[str, list[torch.Tensor]] = {name: [] for name in found}

    def hook(name: str) -> Callable[..., None]:
        return lambda module, args, output: outputs[name].append(output.detach().flatten(1))

    handles = [unet.get_submodule(name).register_forward_hook(hook(name)) for name in found]
    models.call(loaded, "a cat", 0, 3, 4.0)
    for handle in handles:
        handle.remove()
    assert found
    for name, values in found.items():
        before, after = outputs[name][:2]
        change = ((after - before).norm(dim=1) / before.norm(dim=1)).max().item()
        assert values == [None, pytest.approx(change, rel=1e-5), None]


def test_another_unet_and_the_lcm_sampler_can_be_put_in(tiny: Path, loaded: Any) -> None:
    subject = replace(loaded.subject, unet=str(tiny / "unet"))
    again = models.load(subject)
    images = [models.call(one, "a cat", 0, 3, 4.0).images for one in (loaded, again)]
    assert np.array_equal(*images)
    lcm = models.load(replace(subject, sampler="lcm"))
    assert isinstance(lcm.pipe.scheduler, diffusers.LCMScheduler)


def test_a_unet_that_is_nowhere_is_a_sentence(loaded: Any, tmp_path: Path) -> None:
    subject = replace(loaded.subject, unet=str(tmp_path / "nowhere"))
    with pytest.raises(tg.TGateError, match="model 'tiny' could not be loaded"):
        models.load(subject)


@dataclass
class Canned:
    """A pipeline that answers with what it was given."""

    image: Any
    nsfw: Any = None

    def __call__(self, **_: Any) -> Any:
        return SimpleNamespace(images=[self.image], nsfw_content_detected=self.nsfw)


@pytest.mark.parametrize(
    ("pipe", "error"),
    [
        (Canned(np.full((4, 4, 3), np.nan)), "holds NaN"),
        (Canned(np.zeros((4, 4, 3)), [True]), "safety checker blackened"),
    ],
)
def test_a_picture_that_is_none_is_a_failure(loaded: Any, pipe: Any, error: str) -> None:
    item, outputs = Round("tiny", 0, 0, ("ungated",)), []
    with pytest.raises(execute.FailedError, match=error):
        outputs.extend(execute.round_of(models.Loaded(pipe, loaded.subject), item))
    (output,) = execute.round_of(models.Loaded(Canned(np.zeros((4, 4, 3))), loaded.subject), item)
    assert output.record["error"] is None
    assert output.data is not None


def test_a_model_is_loaded_once_for_all_that_is_done_with_it(
    tiny_spec: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = models.load
    monkeypatch.setattr(
        "tgate_plugins.study.worker.load", lambda s, n: loads.append(s.name) or load(s, n)
    )
    spec = tiny_spec(methods=["ours"])
    kit.run(spec, tmp_path, lambda: Here(spec.to_dict()))
    assert loads == ["tiny"]
