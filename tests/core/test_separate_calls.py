"""Pipelines that call the backbone once for each branch: cond runs, uncond is answered."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.layout import SEPARATE
from tgate_sampling.skip import bare_type, skippable_class
from tgate_sampling.testing import tiny_unet, unet_inputs

STEPS, GATE = 6, 3
TIMES = [float(STEPS - i) for i in range(STEPS)]


@pytest.fixture(autouse=True)
def _affine(kit: Any) -> Iterator[None]:
    with kit.plugged(kit.AffinePlugin(), "affine"):
        yield


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, uncond), two rows each."""
    made = torch.Generator().manual_seed(1)
    cond, uncond = torch.randn(2, 2, 7, 3, generator=made)
    return cond, uncond


def samples() -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(2)
    return [torch.randn(2, 4, 2, 2, generator=made) for _ in range(STEPS)]


def drive(gating: Any, unet: Any, *, guided: bool = True) -> list[tuple[torch.Tensor, ...]]:
    """A loop that makes one call a branch; what each step was answered."""
    cond, uncond = texts()
    outputs = []
    for i, t in enumerate(gating.steps(TIMES)):
        words = (cond, uncond) if guided else (cond,)
        outputs.append(tuple(unet(samples()[i], t, encoder_hidden_states=w) for w in words))
    return outputs


def gated(kit: Any, *args: Any, **options: Any) -> tuple[list[Any], Any, Any]:
    unet = kit.Affine()
    with tg.gate(unet, *args, layout="separate", **options) as gating:
        return drive(gating, unet), unet, gating


def bare(kit: Any) -> list[tuple[torch.Tensor, ...]]:
    unet, (cond, uncond) = kit.Affine(), texts()
    return [
        tuple(unet(x, t, encoder_hidden_states=w) for w in (cond, uncond))
        for x, t in zip(samples(), TIMES, strict=True)
    ]


def test_never_closed_is_the_bare_backbone(kit: Any) -> None:
    """Every call is made, and answered to the bit."""
    outputs, unet, _ = gated(kit, "never")
    assert len(unet.rows) == 2 * STEPS
    assert all(map(torch.equal, sum(outputs, ()), sum(bare(kit), ())))


def test_past_the_gate_the_uncond_call_does_not_reach_the_backbone(kit: Any) -> None:
    """`hold`: it is answered with cond minus the delta of the last look."""
    outputs, unet, gating = gated(kit, "fixed_step", gate_step=GATE, gates=("guidance",))
    assert len(unet.rows) == 2 * GATE + (STEPS - GATE)
    last_cond, last_uncond = outputs[GATE - 1]
    for (cond, uncond), truth in zip(outputs[GATE:], bare(kit)[GATE:], strict=True):
        assert torch.equal(cond, truth[0])
        assert torch.equal(uncond, cond - (last_cond - last_uncond))
    assert gating.report.rows == (2 * (2 * GATE + STEPS - GATE), 2 * 2 * STEPS)
    assert gating.report.events == ()


@pytest.mark.parametrize("estimator", ["none", "hold", "decay", "forecast", "linear"])
def test_separate_calls_are_estimated_as_one_batch_is(kit: Any, estimator: str) -> None:
    """For every estimator: the same outputs as with both branches in one call."""
    options = {"gate_step": GATE, "gates": ("guidance",), "estimator": estimator}
    apart, _, _ = gated(kit, "fixed_step", **options)
    cond, uncond = texts()
    both = kit.Affine()
    with tg.gate(both, "fixed_step", layout="cond_first", **options) as gating:
        rows = [torch.cat([x, x]) for x in samples()]
        together = kit.drive(gating, both, rows, torch.cat([cond, uncond]), TIMES)
    assert all(map(torch.equal, (torch.cat(o) for o in apart), together))


def test_each_call_reuses_its_own_attention(kit: Any) -> None:
    """gates=("cross",): cond's output comes from cond's text and uncond's from uncond's."""
    outputs, unet, _ = gated(kit, "fixed_step", gate_step=GATE, gates=("cross",))
    fresh = kit.Affine()
    for i in range(GATE, STEPS):
        for output, words in zip(outputs[i], texts(), strict=True):
            kept = fresh.cross(samples()[GATE - 1], words)
            assert torch.equal(output, TIMES[i] * samples()[i] + kept + fresh.own(samples()[i]))
    assert unet.cross.calls == 2 * GATE


def test_a_look_opens_both_calls_and_their_attention(kit: Any) -> None:
    """refresh=2: at the look both calls run in full, and the next answer rests on them."""
    outputs, _, gating = gated(kit, "fixed_step", gate_step=2, refresh=2)
    truth = bare(kit)
    looks = [i for i in range(STEPS) if "guidance" not in gating.report.steps[i].decision.closed]
    assert looks == [0, 1, 3, 5]
    assert all(torch.equal(a, b) for i in looks for a, b in zip(outputs[i], truth[i], strict=True))
    cond, uncond = outputs[4]
    assert torch.equal(uncond, cond - (outputs[3][0] - outputs[3][1]))


def test_without_a_second_call_there_is_nothing_to_close(kit: Any) -> None:
    """A pipeline of this kind without guidance: one event, and no step says it closed guidance."""
    unet = kit.Affine()
    with tg.gate(unet, "fixed_step", gate_step=GATE, layout="separate") as gating:
        outputs = drive(gating, unet, guided=False)
    assert len(unet.rows) == STEPS
    assert gating.report.closed == {"cross": (3, 4, 5)}
    assert [e.kind for e in gating.report.events] == ["guidance"]
    assert len(outputs) == STEPS


def test_the_reference_s_schedule_keeps_cond_and_says_so(kit: Any) -> None:
    """`tgate` wants the uncond rows, which come after cond's: an event, no crash."""
    outputs, _, gating = gated(kit, "tgate", gate_step=GATE)
    assert all(torch.equal(cond, uncond) for cond, uncond in outputs[GATE:])
    assert "rows" in [e.kind for e in gating.report.events]


def test_the_caller_may_write_into_what_it_was_given(kit: Any) -> None:
    """The cond output is the pipeline's: scaling it in place before the uncond call is no harm."""
    cond, uncond = texts()
    unet, kept = kit.Affine(), []
    with tg.gate(unet, "fixed_step", gate_step=1, gates=("guidance",), layout="separate") as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            first = unet(samples()[i], t, encoder_hidden_states=cond)
            before = first.clone()
            first.mul_(0)
            kept.append((before, unet(samples()[i], t, encoder_hidden_states=uncond)))
    delta = kept[0][0] - kept[0][1]
    assert all(torch.equal(second, first - delta) for first, second in kept[1:])


def test_cond_rows_of_another_number_are_no_partner(kit: Any) -> None:
    """An uncond call of another batch is computed, and nothing crashes."""
    cond, uncond = texts()
    unet = kit.Affine()
    with tg.gate(unet, "fixed_step", gate_step=1, layout="separate") as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            unet(samples()[i], t, encoder_hidden_states=cond)
            out = unet(samples()[i][:1], t, encoder_hidden_states=uncond[:1])
            assert out.shape[0] == 1
    assert len(unet.rows) == 2 * STEPS


@contextmanager
def offloaded(unet: Any) -> Iterator[list[int]]:
    """What accelerate's offload does: a forward of the instance's own, around the class's."""
    own, seen = unet.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return own(*args, **kwargs)

    unet.forward = forward
    try:
        yield seen
    finally:
        del unet.forward


def test_a_forward_of_the_instance_s_own_is_covered_and_given_back(kit: Any) -> None:
    """Offload before attaching: calls are skipped, the rest go through it, and it is restored."""
    unet = kit.Affine()
    with offloaded(unet) as seen:
        installed = unet.__dict__["forward"]
        with tg.gate(unet, "fixed_step", gate_step=GATE, layout="separate") as gating:
            drive(gating, unet)
        assert unet.__dict__["forward"] is installed
    assert len(seen) == len(unet.rows) == 2 * GATE + STEPS - GATE


def test_a_forward_put_on_top_keeps_working_after_we_have_gone(kit: Any) -> None:
    """Offload after attaching holds our bound forward, which must outlive the gating."""
    unet = kit.Affine()
    gating = tg.attach(unet, "fixed_step", gate_step=GATE, layout="separate")
    with offloaded(unet):
        drive(gating, unet)
        gating.detach()
        x = samples()[0]
        again = unet(x, 1.0, encoder_hidden_states=texts()[0])
    assert torch.equal(again, kit.Affine()(x, 1.0, encoder_hidden_states=texts()[0]))


def test_nothing_is_left_behind(kit: Any) -> None:
    """Class, attributes, hooks and forwards are as before, also after an interrupt in a skip."""
    unet = tiny_unet()
    before, inputs = kit.snapshot(unet), unet_inputs(rows=1)

    def broken_off() -> None:
        with tg.gate(unet, "fixed_step", gate_step=1, layout="separate") as gating:
            for t in gating.steps(TIMES):
                unet(**inputs, timestep=t)
                unet(**inputs, timestep=t)
                if t == TIMES[2]:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert kit.snapshot(unet) == before


def test_an_answer_nobody_fetched_is_dropped(kit: Any) -> None:
    """A hook that interrupts between ours and the forward must not leave the answer to others."""
    unet, (cond, uncond) = kit.Affine(), texts()
    gating = tg.attach(unet, "fixed_step", gate_step=1, layout="separate")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    steps = gating.steps(TIMES)
    for words in (cond, uncond):
        next(steps) if words is cond else None
        unet(samples()[0], TIMES[0], encoder_hidden_states=words)
    next(steps)
    unet(samples()[1], TIMES[1], encoder_hidden_states=cond)
    hook = unet.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        unet(samples()[1], TIMES[1], encoder_hidden_states=uncond)
    hook.remove()
    gating.reset()
    again = unet(samples()[1], TIMES[1], encoder_hidden_states=uncond)
    gating.detach()
    assert torch.equal(again, kit.Affine()(samples()[1], TIMES[1], encoder_hidden_states=uncond))


def test_copies_and_pickles_of_a_gated_backbone_are_bare(kit: Any) -> None:
    """They are of the backbone's own class, run without us, and answer alike."""
    unet = tiny_unet()
    inputs = unet_inputs(rows=1) | {"timestep": 500.0, "return_dict": False}
    with torch.no_grad():
        expected = unet(**inputs)[0]
        with tg.gate(unet, "fixed_step", gate_step=1, layout="separate"):
            assert type(unet) is skippable_class(bare_type(type(unet)))
            copies = [copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))]
        for twin in copies:
            assert type(twin) is type(unet)
            assert torch.equal(twin(**inputs)[0], expected)


def test_separate_is_a_layout_of_its_own() -> None:
    """It is spelt as the others are, and is no branch."""
    assert tg.gating.as_layout("separate") == SEPARATE
