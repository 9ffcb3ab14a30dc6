"""Signals: known answers, and what a policy sees when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.signals import Measurement, Signal, Signals, compare, of_samples, read


def test_compare_gives_relative_change_and_cosine() -> None:
    """|a - b| / |b| and cos(a, b), a row each, over all other dimensions."""
    old = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]], [[1.0, 0.0]], [[1.0, 1.0]]])
    new = torch.tensor([[[3.0, 4.0]], [[0.0, 2.0]], [[-1.0, 0.0]], [[0.0, 0.0]]])
    expected = [[4 / 3, 0.6], [0.0, 1.0], [2.0, -1.0], [1.0, 0.0]]
    torch.testing.assert_close(compare(new, old), torch.tensor(expected))


def test_compare_counts_in_float32() -> None:
    """Half-precision outputs do not overflow, though 600 squared is beyond float16."""
    half = torch.full((1, 4096), 300.0, dtype=torch.float16)
    found = compare(half * 2, half)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0]]))


def test_nothing_is_infinite_that_was_zero() -> None:
    """A row that was and is zero has not changed."""
    assert compare(torch.zeros(1, 4), torch.zeros(1, 4))[0, 0] == 0


def measurement(site: str, rows: list[list[float]], branches: int, kind: str = "cross") -> Any:
    return Measurement(kind, site, of_samples(torch.tensor(rows), branches, len(rows) // branches))


def test_a_site_may_fold_frames_or_pixels_into_its_rows() -> None:
    """Two branches, two samples, three rows each: each sample's worst of all six."""
    change = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.9]
    rows = torch.tensor([[c, 1 - c] for c in change])
    found = of_samples(rows, 2, 2)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4], [0.9, 0.1]]))


def test_read_takes_the_worst_branch_and_the_mean_over_sites() -> None:
    """Two samples in two branches at two sites."""
    measured = [
        measurement("a", [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.0, 1.0]], 2),
        measurement("b", [[0.5, 0.5], [0.4, 1.0], [0.1, 0.6], [0.6, 0.2]], 2),
    ]
    signal = read(measured, Signals())["cross"]
    assert signal.sites["a"].change == pytest.approx((0.3, 0.2))
    assert signal.sites["a"].cosine == pytest.approx((0.7, 0.8))
    assert signal.change == pytest.approx(((0.3 + 0.5) / 2, (0.2 + 0.6) / 2))
    assert signal.cosine == pytest.approx(((0.7 + 0.5) / 2, (0.8 + 0.2) / 2))
    assert signal.worst_change == max(signal.change)
    assert signal.worst_cosine == min(signal.cosine)


def test_read_keeps_kinds_apart() -> None:
    """Cross and self sites, of different batch and branch counts, in one transfer."""
    measured = [
        measurement("a", [[0.1, 0.9], [0.2, 0.8]], 2),
        measurement("b", [[0.5, 0.5]], 1, "self"),
    ]
    signals = read(measured, Signals())
    assert {k: s.change for k, s in signals.items()} == {
        "cross": pytest.approx((0.2,)),
        "self": pytest.approx((0.5,)),
    }
    assert len(signals) == 2
    assert "guidance" not in signals
    assert "cross" in repr(signals)


def test_the_cosine_s_delta_is_since_the_step_before() -> None:
    """Empty at first and where the batch has changed; else now - then, per sample."""
    first = read([measurement("a", [[0.1, 0.5], [0.1, 0.9]], 1)], Signals())
    second = read([measurement("a", [[0.1, 0.7], [0.1, 0.8]], 1)], first)
    third = read([measurement("a", [[0.1, 0.7]], 1)], second)
    assert first["cross"].worst_cosine_delta is None
    assert second["cross"].cosine_delta == pytest.approx((0.2, -0.1))
    assert second["cross"].worst_cosine_delta == pytest.approx(0.2)
    assert third["cross"].cosine_delta == ()


def test_a_signal_of_one_sample() -> None:
    """Worst and only are the same."""
    signal = Signal((0.25,), (0.5,), (-0.125,))
    assert (signal.worst_change, signal.worst_cosine, signal.worst_cosine_delta) == (
        0.25,
        0.5,
        0.125,
    )


# -- in a run -----------------------------------------------------------------------------------


@pytest.fixture
def affine(kit: Any) -> Iterator[Any]:
    with kit.plugged(kit.AffinePlugin(), "affine plugin"):
        yield kit.Affine()


def test_a_policy_sees_the_steps_before_and_never_its_own(kit: Any, affine: Any) -> None:
    """At step i it is told how step i - 1 differed from step i - 2, in numbers one can check."""
    seen: list[tuple[int, Signal | None]] = []

    def watcher(step: tg.StepContext, signals: tg.Signals) -> bool:
        seen.append((step.index, signals.get("cross")))
        return False

    watcher_policy = tg.policy(name="watcher of cross", signals=("cross",))(watcher)
    sample, text = torch.ones(2, 1, 2, 2), torch.ones(2, 3, 5)
    with tg.gate(affine, watcher_policy, layout="uncond_first") as gating:
        for i, t in enumerate(gating.steps([4.0, 3.0, 2.0, 1.0])):
            affine(sample, t, encoder_hidden_states=text * 2**i)
    assert [(i, s and s.change) for i, s in seen] == [
        (0, None),
        (1, None),
        (2, (1.0,)),  # doubled: |2y - y| / |y|
        (3, (1.0,)),
    ]
    assert [s.cosine for _, s in seen if s] == [pytest.approx((1.0,))] * 2
    assert seen[3][1] is not None
    assert seen[3][1].cosine_delta == pytest.approx((0.0,), abs=1e-6)
    assert list(seen[3][1].sites) == ["cross"]


def test_only_declared_signals_are_measured(affine: Any) -> None:
    """A policy that asks for self-attention is not given cross-attention."""
    seen: list[set[str]] = []

    @tg.policy(name="watcher of self", signals=("self",))
    def watcher(step: tg.StepContext, signals: tg.Signals) -> bool:
        seen.append(set(signals))
        return False

    sample, text = torch.ones(2, 1, 2, 2), torch.ones(2, 3, 5)
    with tg.gate(affine, watcher, layout="uncond_first") as gating:
        for t in gating.steps([3.0, 2.0, 1.0]):
            affine(sample, t, encoder_hidden_states=text)
    assert seen == [set(), set(), {"self"}]


def test_signals_are_the_backbone_s_own_movement(kit: Any) -> None:
    """On a real UNet the change a policy is told equals one computed from the sites' outputs."""
    unet = kit.tiny_unet()
    outputs: dict[str, list[torch.Tensor]] = {}
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            outputs[name] = []
            module.register_forward_hook(lambda m, a, out, kept=outputs[name]: kept.append(out))
    told: list[Signal] = []

    @tg.policy(name="watcher of a unet", signals=("cross",))
    def watcher(step: tg.StepContext, signals: tg.Signals) -> bool:
        told.extend(signals.values())
        return False

    with tg.gate(unet, watcher, layout="uncond_first") as gating:
        kit.walk(unet, [901, 601, 301, 1], rows=4, gating=gating)
    assert len(told) == 2
    for i, signal in enumerate(told):
        for name, kept in outputs.items():
            new, old = kept[i + 1].flatten(1), kept[i].flatten(1)
            change = ((new - old).norm(dim=1) / old.norm(dim=1)).view(2, 2).amax(0)
            assert signal.sites[name].change == pytest.approx(change.tolist(), rel=1e-5)
            cosine = torch.nn.functional.cosine_similarity(new, old).view(2, 2).amin(0)
            assert signal.sites[name].cosine == pytest.approx(cosine.tolist(), rel=1e-5)
        assert not any(math.isnan(c) for c in signal.change)
