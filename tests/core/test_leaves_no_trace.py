"""Promise 2: after a gating, whatever happened in it, the backbone is as it was found."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.testing import tiny_unet, unet_inputs

newer = load_helper("newer.py")

GATE = 3
OPTIONS: dict[str, Any] = {"policy": "fixed_step", "gate_step": GATE}


class TroubleError(Exception):
    """What a test raises."""


def at_call(number: int, error: BaseException) -> Callable[..., None]:
    """A forward hook that raises in its `number`-th call."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise error

    return hook


@contextmanager
def in_the_forward(pipe: Any, error: BaseException) -> Iterator[dict[str, Any]]:
    """Raise in the middle of the UNet, in the fifth step."""
    handle = pipe.unet.mid_block.register_forward_hook(at_call(5, error))
    yield {}
    handle.remove()


@contextmanager
def in_a_site(pipe: Any, error: BaseException) -> Iterator[dict[str, Any]]:
    """Raise in an attention module that is gated."""
    site = next(m for n, m in pipe.unet.named_modules() if n.endswith("attn1"))
    handle = site.register_forward_hook(at_call(5, error))
    yield {}
    handle.remove()


@contextmanager
def in_another_hook(pipe: Any, error: BaseException) -> Iterator[dict[str, Any]]:
    """Raise in somebody else's pre-hook on the UNet, after ours has run."""
    handle = pipe.unet.register_forward_pre_hook(at_call(5, error))
    yield {}
    handle.remove()


@contextmanager
def in_a_callback(pipe: Any, error: BaseException) -> Iterator[dict[str, Any]]:
    """Raise between two steps, in the user's callback."""

    def callback(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        if step == 4:
            raise error
        return state

    yield {"callback_on_step_end": callback}


@contextmanager
def in_the_scheduler(pipe: Any, error: BaseException) -> Iterator[dict[str, Any]]:
    """Raise in `scheduler.step`."""
    whole, hook = pipe.scheduler.step, at_call(5, error)

    def step(*args: Any, **kwargs: Any) -> Any:
        hook()
        return whole(*args, **kwargs)

    pipe.scheduler.step = step
    yield {}
    del pipe.scheduler.step


PLACES = [in_the_forward, in_a_site, in_another_hook, in_a_callback, in_the_scheduler]
ERRORS = [TroubleError("in the middle"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
def test_gate_leaves_nothing_after_an_error(kit: Any, place: Any, error: BaseException) -> None:
    """The error comes out; classes, attributes, hooks, keys and the bare output are as before."""
    pipe = kit.make_pipe()
    bare, before = kit.call(pipe), kit.snapshot(pipe.unet)
    with place(pipe, error) as call:
        inside = kit.snapshot(pipe.unet)
        gating = tg.gate(pipe, **OPTIONS)
        with pytest.raises(type(error)), gating:
            kit.call(pipe, **call)
        assert kit.snapshot(pipe.unet) == inside
    assert gating.cache_bytes == 0
    assert kit.snapshot(pipe.unet) == before
    assert torch.equal(kit.call(pipe), bare)
    assert not gating.report.complete


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
def test_attach_survives_an_error(kit: Any, place: Any, error: BaseException) -> None:
    """After an error the attached pipeline's next image is a fresh one's, and detach is clean."""
    expected = kit.make_pipe()
    with tg.gate(expected, **OPTIONS):
        gated = kit.call(expected)
    pipe = kit.make_pipe()
    bare, before = kit.call(pipe), kit.snapshot(pipe.unet)
    gating = tg.attach(pipe, **OPTIONS)
    with place(pipe, error) as call, pytest.raises(type(error)):
        kit.call(pipe, **call)
    assert torch.equal(kit.call(pipe), gated)
    assert [r.complete for r in gating.runs] == [False, True]
    assert gating.cache_bytes == 0
    gating.detach()
    assert kit.snapshot(pipe.unet) == before
    assert torch.equal(kit.call(pipe), bare)


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
def test_reset_lets_go_of_an_abandoned_run(kit: Any, place: Any) -> None:
    """After an interrupt a server may say reset(): nothing is held any more."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **OPTIONS)
    error = KeyboardInterrupt()
    with place(pipe, error) as call, pytest.raises(KeyboardInterrupt):
        kit.call(pipe, **call)
    gating.reset()
    assert gating.cache_bytes == 0
    assert kept_tensors(pipe.unet) == []
    gating.detach()


def kept_tensors(backbone: nn.Module) -> list[str]:
    """Names of modules that hold a kept output."""
    return [n for n, m in backbone.named_modules() if m.__dict__.get("_tgate_kept") is not None]


@pytest.mark.parametrize("gate_step", [1, 5, 6, 7, 100])
def test_a_gate_at_or_beyond_the_end_holds_nothing(kit: Any, gate_step: int) -> None:
    """Also where the run ends before anything closes, nothing stays behind."""
    pipe = kit.make_pipe()
    bare, before = kit.call(pipe), kit.snapshot(pipe.unet)
    with tg.gate(pipe, "fixed_step", gate_step=gate_step) as gating:
        gated = kit.call(pipe)
        assert gating.cache_bytes == 0
        assert kept_tensors(pipe.unet) == []
    assert kit.snapshot(pipe.unet) == before
    assert torch.equal(gated, bare) == (gate_step >= kit.STEPS)
    assert torch.equal(kit.call(pipe), bare)


def test_an_unending_gating_holds_nothing_between_runs(kit: Any) -> None:
    """Between two images of an attached pipeline no site keeps a tensor."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **OPTIONS)
    for guidance_scale in (7.5, 1.0):
        kit.call(pipe, guidance_scale=guidance_scale)
        assert gating.cache_bytes == 0
        assert kept_tensors(pipe.unet) == []
    gating.detach()
    gating.detach()  # harmless


def test_detaching_in_the_middle_of_a_run_leaves_the_rest_bare(kit: Any) -> None:
    """A callback may detach: the steps that follow run all rows, and nothing stays behind."""
    pipe = kit.make_pipe()
    rows: list[int] = []
    handle = pipe.unet.conv_in.register_forward_hook(lambda m, a, out: rows.append(len(out)))
    before = kit.snapshot(pipe.unet)
    gating = tg.attach(pipe, **OPTIONS)

    def callback(pipe: Any, step: int, timestep: Any, state: Any) -> Any:
        if step == 4:
            gating.detach()
            assert kit.snapshot(pipe.unet) == before
        return state

    kit.call(pipe, callback_on_step_end=callback)
    assert rows == [2, 2, 2, 1, 1, 2]
    assert [(len(r.steps), r.complete) for r in gating.runs] == [(5, False)]
    handle.remove()


def test_promise_1_an_open_gate_runs_the_same_operations(kit: Any) -> None:
    """With a policy that never closes, every operator is called as often, on the same shapes."""
    seen: list[list[tuple[str, Any]]] = []
    results = []
    for gated in (False, True):
        pipe, calls = kit.make_pipe(), []

        def note(op: Any, args: Any, result: Any, calls: Any = calls) -> None:
            if isinstance(result, torch.Tensor) and result.is_meta:
                return  # the shape of a call, noted once for counting; nothing is computed
            shapes = tuple(a.shape for a in args if isinstance(a, torch.Tensor))
            calls.append((str(op), shapes))

        gating = tg.attach(pipe, "never") if gated else None
        with kit.Watch(note):
            results.append(kit.call(pipe))
        if gating is not None:
            gating.detach()
        seen.append(calls)
    assert torch.equal(*results)
    assert seen[0] == seen[1]


def test_an_attach_that_fails_half_way_is_undone(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of it had been done is taken back, and the backbone can be gated afterwards."""
    unet = tiny_unet()
    before = kit.snapshot(unet)
    with monkeypatch.context() as patch:
        patch.setattr("tgate_sampling.gating.ask_for_end", at_call(1, TroubleError("half way")))
        with pytest.raises(TroubleError):
            tg.attach(unet, layout="uncond_first", **OPTIONS)
    assert kit.snapshot(unet) == before
    tg.attach(unet, layout="uncond_first", **OPTIONS).detach()


@newer.needs_diffusers("0.33", "pipelines before it call no reset when they end")
def test_a_backbone_s_own_reset_stays_its_own(kit: Any) -> None:
    """What diffusers' CacheMixin has put there is called as ever and given back: ours covers it."""
    pipe = kit.make_pipe()
    calls: list[int] = []

    def reset(*_: Any, **__: Any) -> None:
        calls.append(1)

    pipe.unet._reset_stateful_cache = reset
    with tg.gate(pipe, **OPTIONS) as gating:
        kit.call(pipe)
        assert gating.cache_bytes == 0
    assert pipe.unet._reset_stateful_cache is reset
    assert calls == [1]
    assert gating.report.complete


# -- somebody else on the same UNet -------------------------------------------------------------


def foreign_img2img(kit: Any, pipe: Any, *, shared_scheduler: bool) -> Any:
    """Another pipeline on the same UNet, as `from_pipe` makes it."""
    components = dict(pipe.components)
    if not shared_scheduler:
        components["scheduler"] = diffusers.DDIMScheduler(**kit.SCHEDULER)
    other = diffusers.StableDiffusionImg2ImgPipeline(**components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def call_img2img(pipe: Any, **more: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    embeds = torch.randn(2, 7, 16, generator=generator)
    latents: torch.Tensor = pipe(
        image=torch.randn(2, 4, 8, 8, generator=generator),
        prompt_embeds=embeds,
        negative_prompt_embeds=torch.zeros_like(embeds),
        num_inference_steps=8,
        strength=0.75,
        generator=generator,
        output_type="latent",
        **more,
    ).images
    return latents


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("shared_scheduler", [False, True], ids=["own", "shared"])
def test_another_pipeline_on_the_same_unet_is_left_alone(
    kit: Any, shared_scheduler: bool, guidance_scale: float
) -> None:
    """Its result is bitwise its bare one, with one event, and ours goes on as if alone."""
    pipe = kit.make_pipe()
    other = foreign_img2img(kit, pipe, shared_scheduler=shared_scheduler)
    bare = call_img2img(other, guidance_scale=guidance_scale)
    with tg.gate(pipe, **OPTIONS) as gating:
        first = kit.call(pipe)
        foreign = call_img2img(other, guidance_scale=guidance_scale)
        second = kit.call(pipe)
    assert torch.equal(foreign, bare)
    assert torch.equal(first, second)
    assert [e.kind for e in gating.events] == ["outside"]
    assert "another pipeline" in gating.events[0].message
    assert len(gating.runs) == 2


def test_another_pipeline_may_run_in_the_middle_of_ours(kit: Any) -> None:
    """A preview from a callback: both results are what they would be alone, with one event."""
    pipe = kit.make_pipe()
    other = foreign_img2img(kit, pipe, shared_scheduler=False)
    bare = call_img2img(other)
    with tg.gate(pipe, **OPTIONS):
        alone = kit.call(pipe)
    previews = []

    def callback(_: Any, step: int, timestep: Any, state: Any) -> Any:
        if step in (1, 4):
            previews.append(call_img2img(other))
        return state

    with tg.gate(pipe, **OPTIONS) as gating:
        ours = kit.call(pipe, callback_on_step_end=callback)
    assert all(torch.equal(p, bare) for p in previews)
    assert torch.equal(ours, alone)
    assert [e.kind for e in gating.report.events] == ["outside"]
    assert len(gating.runs) == 1


# -- copies, pickles, garbage -------------------------------------------------------------------


def pickled(unet: Any) -> Any:
    return pickle.loads(pickle.dumps(unet))


def saved(unet: Any) -> Any:
    file = io.BytesIO()
    torch.save(unet, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("moment", ["between runs", "in a run"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved], ids=lambda f: f.__name__)
def test_a_copy_of_a_gated_unet_is_an_ordinary_one(kit: Any, duplicate: Any, moment: str) -> None:
    """Nothing of ours travels: no class, no attribute, no hook; it runs bare and can be gated."""
    unet = tiny_unet()
    clean = kit.snapshot(copy.deepcopy(unet))
    bare = kit.walk(unet, [901, 601, 301, 1])
    with tg.gate(unet, layout="uncond_first", **OPTIONS) as gating:
        if moment == "in a run":
            steps = gating.steps([901, 601, 301, 1, 0])
            with torch.no_grad():
                for t, _ in zip(steps, range(4), strict=False):
                    unet(**unet_inputs(), timestep=t)
                assert gating.cache_bytes > 0
                made = duplicate(unet)
            steps.close()
        else:
            made = duplicate(unet)
        gated = kit.walk(unet, [901, 601, 301, 1], gating=gating)
    assert kit.snapshot(made) == clean
    assert torch.equal(kit.walk(made, [901, 601, 301, 1]), bare)
    with tg.gate(made, layout="uncond_first", **OPTIONS) as gating:
        assert torch.equal(kit.walk(made, [901, 601, 301, 1], gating=gating), gated)


def test_a_copied_pipeline_can_be_gated_as_any(kit: Any) -> None:
    """deepcopy(pipe) while gated: its runs end, and its images are the original's."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, **OPTIONS):
        twin = copy.deepcopy(pipe)
        expected = kit.call(pipe)
    with tg.gate(twin, **OPTIONS) as gating:
        assert torch.equal(kit.call(twin), expected)
        assert gating.cache_bytes == 0
    assert [r.complete for r in gating.runs] == [True]


def test_a_state_dict_taken_in_a_run_loads_anywhere(kit: Any) -> None:
    """Keys and values are the model's own, in the middle of a run too."""
    unet = tiny_unet()
    keys = list(unet.state_dict())
    with tg.gate(unet, layout="uncond_first", **OPTIONS) as gating, torch.no_grad():
        for t in gating.steps([901, 601, 301, 1]):
            unet(**unet_inputs(), timestep=t)
            assert list(unet.state_dict()) == keys


def test_save_pretrained_of_a_gated_unet_writes_an_ordinary_one(kit: Any, tmp_path: Any) -> None:
    """Config and weights on disk are those of the bare model."""
    unet = tiny_unet()
    with tg.gate(unet, layout="uncond_first", **OPTIONS):
        unet.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path)
    assert kit.snapshot(loaded)["keys"] == kit.snapshot(unet)["keys"]
    assert torch.equal(kit.walk(loaded, [901, 1]), kit.walk(unet, [901, 1]))


def test_no_tensor_of_a_run_survives_it(kit: Any) -> None:
    """Samples, outputs and every site's output are garbage once the run is over; the report is
    not."""
    unet = tiny_unet()
    born: list[weakref.ref[torch.Tensor]] = []

    def note(module: Any, args: Any, out: Any) -> None:
        born.append(weakref.ref(out if isinstance(out, torch.Tensor) else out.sample))

    sites = [m for n, m in unet.named_modules() if n.endswith(("attn1", "attn2"))]
    handles = [m.register_forward_hook(note) for m in [unet, *sites]]
    gating = tg.attach(unet, "tgate", gate_step=2, sp_interval=2, layout="uncond_first")
    times = [torch.tensor(t) for t in (901, 601, 301, 1)]
    with torch.no_grad():
        for t in gating.steps(times):
            inputs = unet_inputs()
            born.append(weakref.ref(inputs["sample"]))
            unet(**inputs, timestep=t)
            del inputs
    gc.collect()
    assert len(born) >= len(times) * 2 + len(sites)
    assert sum(ref() is not None for ref in born) == 0
    assert gating.report.to_dict()["complete"]
    for handle in handles:
        handle.remove()
    gating.detach()


def test_a_finished_gating_holds_no_tensor_of_its_runs(kit: Any) -> None:
    """What gc can reach from a gating and its reports are the model and a few timesteps."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **OPTIONS)
    kit.call(pipe)
    gating.detach()
    own = {
        id(p) for m in pipe.components.values() if isinstance(m, nn.Module) for p in m.parameters()
    }
    held = [t for t in reachable(gating) if id(t) not in own and not t.is_meta]
    assert [tuple(t.shape) for t in held if t.ndim > 1] == []


def reachable(root: object) -> list[torch.Tensor]:
    """Tensors that an object keeps alive, without walking into classes and modules of code."""
    seen: set[int] = set()
    stack, found = [root], []
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (type, type(gc))):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            found.append(item)
            continue
        if callable(item) and hasattr(item, "__globals__"):  # a function: its cells, not its module
            stack += [item.__closure__, item.__defaults__]
            continue
        stack += gc.get_referents(item)
    return found


def test_a_forgotten_backbone_takes_its_gating_along() -> None:
    """attach() without detach() keeps nothing alive once the user has dropped it."""
    unet = tiny_unet()
    gone = weakref.ref(unet)
    gating = tg.attach(unet, layout="uncond_first", **OPTIONS)
    ended = weakref.ref(gating)
    del unet, gating
    gc.collect()
    assert (gone(), ended()) == (None, None)


def test_a_site_called_between_two_calls_of_a_run_computes() -> None:
    """What is kept is for the backbone's own calls; a caller of a submodule gets the truth."""
    unet = tiny_unet()
    inputs = unet_inputs(rows=2)
    site = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    hidden = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(3))
    text = inputs["encoder_hidden_states"]
    with torch.no_grad():
        bare = site(hidden, text)
        with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
            for t in gating.steps([901, 601, 301]):
                unet(**inputs, timestep=t)
                assert torch.equal(site(hidden, text), bare)
        assert gating.report.closed["cross"] == (1, 2)
