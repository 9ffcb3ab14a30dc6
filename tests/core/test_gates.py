"""What closed gates compute, worked out by hand on a backbone of three terms.

`kit.Affine` is t * sample + 2 mean(text) + 0.5 mean(sample); the second term is its cross site, the
third its self site.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_sampling import Decision

STEPS, GATE = 6, 3
TIMES = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.fixture(autouse=True)
def _plugged(kit: Any) -> Iterator[None]:
    with kit.plugged(kit.AffinePlugin(), "affine plugin"):
        yield


def inputs(rows: int = 4, seed: int = 0) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Samples of each step, equal in both halves of the batch, and a text for each row."""
    generator = torch.Generator().manual_seed(seed)
    samples = [torch.randn(rows // 2, 4, 2, 2, generator=generator).repeat(2, 1, 1, 1)] * STEPS
    samples = [s + i for i, s in enumerate(samples)]
    return samples, torch.randn(rows, 3, 5, generator=generator)


def bare(kit: Any, samples: list[torch.Tensor], text: torch.Tensor) -> list[torch.Tensor]:
    unet = kit.Affine()
    return [unet(s, t, encoder_hidden_states=text) for s, t in zip(samples, TIMES, strict=True)]


def gated(
    kit: Any, policy: Any, layout: str | None = "uncond_first", rows: int = 4, **options: Any
) -> tuple[list[torch.Tensor], Any, Any]:
    """(outputs, backbone, gating) of a gated loop."""
    unet = kit.Affine()
    samples, text = inputs(rows)
    with tg.gate(unet, policy, layout=layout, **options) as gating:
        outputs = kit.drive(gating, unet, samples, text, TIMES)
        assert gating.cache_bytes == 0
    return outputs, unet, gating


def halves(outputs: list[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    return [o.chunk(2) for o in outputs]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


# -- guidance -----------------------------------------------------------------------------------


def test_none_makes_uncond_the_cond(kit: Any) -> None:
    """Estimator "none": past the gate both halves are the bare cond half; before it nothing is."""
    outputs, unet, _ = gated(
        kit, "fixed_step", gate_step=GATE, gates=("guidance",), estimator="none"
    )
    expected = bare(kit, *inputs())
    cond = [c for _, c in halves(expected)]
    assert same(outputs, expected[:GATE] + [torch.cat([c, c]) for c in cond[GATE:]]) == [True] * 6
    assert unet.rows == [4] * GATE + [2] * (STEPS - GATE)


def test_hold_keeps_the_last_delta(kit: Any) -> None:
    """Estimator "hold": uncond = cond - delta, with the delta of step gate - 1, exactly."""
    outputs, _, gating = gated(kit, "fixed_step", gate_step=GATE, gates=("guidance",))
    expected = halves(bare(kit, *inputs()))
    delta = expected[GATE - 1][1] - expected[GATE - 1][0]
    filled = [torch.cat([c - delta, c]) for _, c in expected[GATE:]]
    assert same(outputs[GATE:], filled) == [True] * (STEPS - GATE)
    assert gating.report.rows == (18, 24)


def test_guidance_alone_is_nearly_exact_where_delta_is_constant(kit: Any) -> None:
    """Here cond - uncond depends on the text alone, so that `hold` is right to rounding."""
    outputs, _, _ = gated(kit, "fixed_step", gate_step=1, gates=("guidance",))
    for ours, true in zip(outputs, bare(kit, *inputs()), strict=True):
        torch.testing.assert_close(ours, true)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_refresh_looks_at_both_branches_every_so_many_steps(kit: Any, every: int) -> None:
    """refresh=k runs all rows k steps after the last guided one, and there only."""
    _, unet, gating = gated(kit, "fixed_step", gate_step=2, gates=("guidance",), refresh=every)
    full = [i < 2 or (i - 1) % every == 0 for i in range(STEPS)]
    assert unet.rows == [4 if f else 2 for f in full]
    assert gating.report.closed.get("guidance", ()) == tuple(i for i, f in enumerate(full) if not f)
    reasons = [s.decision.reason for s in gating.report.steps if full[s.index] and s.index >= 2]
    assert set(reasons) <= {f"refresh={every}: a look at both branches"}


def test_refresh_renews_the_delta(kit: Any) -> None:
    """After a look, `hold` rests on it and not on the step before the gate."""
    unet = kit.Affine()
    samples, text = inputs()
    texts = [text * (i + 1) for i in range(STEPS)]
    outputs = []
    with tg.gate(
        unet, "fixed_step", gate_step=1, gates=("guidance",), layout="uncond_first", refresh=3
    ) as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            outputs.append(unet(samples[i], t, encoder_hidden_states=texts[i]))
    assert unet.rows == [4, 2, 2, 4, 2, 2]
    uncond, cond = unet(samples[3], TIMES[3], encoder_hidden_states=texts[3]).chunk(2)
    ours, now = outputs[5].chunk(2)
    assert torch.equal(ours, now - (cond - uncond))


def test_cond_first_is_uncond_first_with_the_halves_swapped(kit: Any) -> None:
    """layout="cond_first" on swapped inputs gives swapped outputs, bit for bit."""
    samples, text = inputs()
    swapped = torch.cat(text.chunk(2)[::-1])
    results = []
    for layout, words in (("uncond_first", text), ("cond_first", swapped)):
        unet = kit.Affine()
        with tg.gate(unet, "fixed_step", gate_step=GATE, layout=layout) as gating:
            results.append(kit.drive(gating, unet, samples, words, TIMES))
    mirrored = [torch.cat(o.chunk(2)[::-1]) for o in results[1]]
    assert same(results[0], mirrored) == [True] * STEPS


def test_labels_may_be_spelt_out(kit: Any) -> None:
    """layout=("cond", "uncond") is "cond_first"."""
    named, _, _ = gated(kit, "fixed_step", gate_step=GATE, layout="cond_first")
    spelt, _, _ = gated(kit, "fixed_step", gate_step=GATE, layout=("cond", "uncond"))  # type: ignore[arg-type]
    assert same(named, spelt) == [True] * STEPS


THREE = ("cond", "image", "uncond")


def test_of_three_branches_each_has_a_delta_of_its_own(kit: Any) -> None:
    """InstructPix2Pix: past the gate cond runs, and both others keep their distance to it."""
    outputs, unet, gating = gated(
        kit, "fixed_step", layout=THREE, rows=6, gate_step=GATE, gates=("guidance",)
    )
    assert unet.rows == [6] * GATE + [2] * (STEPS - GATE)
    last = outputs[GATE - 1].chunk(3)
    for output in outputs[GATE:]:
        cond, image, uncond = output.chunk(3)
        assert torch.equal(image, cond - (last[0] - last[1]))
        assert torch.equal(uncond, cond - (last[0] - last[2]))
    assert not torch.equal(last[1], last[2])
    assert gating.report.rows == (6 * GATE + 2 * (STEPS - GATE), 36)


def test_a_perturbed_branch_keeps_guidance_open_and_attention_still_closes(kit: Any) -> None:
    """PAG's rows are perturbed by their place in the batch: nothing is narrowed."""
    _, unet, gating = gated(
        kit, "fixed_step", layout=("uncond", "cond", "perturbed"), rows=6, gate_step=GATE
    )
    assert unet.rows == [6] * STEPS
    assert unet.cross.calls == GATE
    assert [e.kind for e in gating.report.events] == ["guidance"]
    assert "guidance" not in gating.report.closed


# -- attention ----------------------------------------------------------------------------------


def test_attention_gates_alone_keep_guidance(kit: Any) -> None:
    """gates=("cross",): all rows run, and the cross term is that of the step before the gate."""
    outputs, unet, gating = gated(kit, "fixed_step", gate_step=GATE, gates=("cross",))
    samples, text = inputs()
    cross = kit.Affine().cross(samples[0], text)
    expected = [t * s + cross + unet.own(s) for s, t in zip(samples, TIMES, strict=True)]
    assert same(outputs, expected) == [True] * STEPS
    assert (unet.cross.calls, set(unet.rows)) == (GATE, {4})
    assert gating.report.closed == {"cross": (3, 4, 5)}


def test_the_self_gate_reuses_what_it_kept(kit: Any) -> None:
    """gates=("self",): the third term stays that of step gate - 1."""
    outputs, _, _ = gated(kit, "fixed_step", gate_step=GATE, gates=("self",))
    samples, text = inputs()
    fresh = kit.Affine()
    kept = fresh.own(samples[GATE - 1])
    expected = [
        TIMES[i] * samples[i] + fresh.cross(samples[i], text) + kept for i in range(GATE, STEPS)
    ]
    assert same(outputs[GATE:], expected) == [True] * (STEPS - GATE)


@pytest.mark.parametrize("merge", ["cond", "mean", "both"])
def test_merge_says_what_the_running_branch_reuses(kit: Any, merge: str) -> None:
    """cond and both: the rows that run; mean: the average of both branches, as T-GATE."""
    outputs, _, _ = gated(kit, "fixed_step", gate_step=GATE, estimator="none", merge=merge)
    samples, text = inputs()
    fresh = kit.Affine()
    uncond, cond = fresh.cross(samples[0], text).chunk(2)
    kept = (uncond + cond) / 2 if merge == "mean" else cond
    half = [s.chunk(2)[1] for s in samples]
    expected = [TIMES[i] * half[i] + kept + fresh.own(half[i]) for i in range(GATE, STEPS)]
    assert same(outputs[GATE:], [torch.cat([e, e]) for e in expected]) == [True] * (STEPS - GATE)


def test_merge_both_needs_no_attention_at_a_look(kit: Any) -> None:
    """With both branches kept a refresh reuses attention; otherwise it computes it anew."""
    calls = {}
    for merge in ("cond", "both"):
        _, unet, _ = gated(kit, "fixed_step", gate_step=2, refresh=2, merge=merge)
        calls[merge] = unet.cross.calls
    assert calls == {"cond": 4, "both": 2}  # looks at steps 3 and 5


def test_a_decision_s_own_merge_and_estimator_count(kit: Any) -> None:
    """A decision that says how to fill overrules the gating."""

    def policy(step: tg.StepContext) -> Any:
        if step.index < GATE:
            return False
        return Decision(frozenset({"guidance", "cross"}), estimator="none", merge="mean")

    live, _, _ = gated(kit, policy)
    planned, _, _ = gated(kit, "fixed_step", gate_step=GATE, estimator="none", merge="mean")
    assert same(live, planned) == [True] * STEPS


def test_closing_uncond_rows_runs_the_other_branch(kit: Any) -> None:
    """rows="uncond" evaluates the negative prompt and puts it in both halves."""

    def policy(step: tg.StepContext) -> Any:
        closed = frozenset({"guidance"} if step.index >= GATE else ())
        return Decision(closed, estimator="none", rows="uncond")

    outputs, _, _ = gated(kit, policy)
    uncond = [u for u, _ in halves(bare(kit, *inputs()))]
    assert same(outputs[GATE:], [torch.cat([u, u]) for u in uncond[GATE:]]) == [True] * 3


@pytest.mark.parametrize("gate_step", range(1, STEPS + 2))
@pytest.mark.parametrize(
    "options", [{}, {"refresh": 2}, {"merge": "both", "refresh": 2}, {"estimator": "none"}]
)
def test_a_planned_and_a_live_policy_give_the_same_images(
    kit: Any, gate_step: int, options: dict[str, Any]
) -> None:
    """fixed_step and the same rule as a function differ in what they store, in nothing else."""
    planned, _, one = gated(kit, "fixed_step", gate_step=gate_step, **options)
    live, _, other = gated(kit, lambda step: step.index >= gate_step, **options)
    assert same(planned, live) == [True] * STEPS
    assert one.report.closed == other.report.closed
    assert one.report.peak_cache_bytes <= other.report.peak_cache_bytes


def test_a_planned_policy_holds_nothing_before_its_last_open_step(kit: Any) -> None:
    """Memory is taken at step gate - 1; a live policy takes it at once."""
    held: dict[str, list[bool]] = {}
    for name, policy in (("planned", "fixed_step"), ("live", lambda step: step.index >= GATE)):
        unet = kit.Affine()
        samples, text = inputs()
        options = {"gate_step": GATE} if name == "planned" else {}
        with tg.gate(unet, policy, layout="uncond_first", **options) as gating:
            held[name] = []
            for i, t in enumerate(gating.steps(TIMES)):
                unet(samples[i], t, encoder_hidden_states=text)
                held[name].append(gating.cache_bytes > 0)
    assert held["planned"] == [i >= GATE - 1 for i in range(STEPS)]
    assert held["live"] == [True] * STEPS


def test_cache_bytes_count_what_is_held(kit: Any) -> None:
    """One cond half of the cross site and one delta, float32."""
    unet = kit.Affine()
    samples, text = inputs()
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            unet(samples[i], t, encoder_hidden_states=text)
            if i == 3:
                assert gating.cache_bytes == 2 * (samples[0].numel() // 2) * 4
    # Before the gate the site holds both branches.
    assert gating.report.peak_cache_bytes == (2 + 1) * (samples[0].numel() // 2) * 4


# -- fail open ----------------------------------------------------------------------------------


def events(gating: Any) -> list[tuple[str, int | None]]:
    return [(e.kind, e.step) for e in gating.report.events]


def test_an_unknown_layout_keeps_guidance_open_with_one_event(kit: Any) -> None:
    """Without layout= all rows run, cross-attention still closes, and the event holds the cure."""
    outputs, unet, gating = gated(kit, "fixed_step", layout=None, gate_step=GATE)
    only_cross, _, _ = gated(kit, "fixed_step", gate_step=GATE, gates=("cross",))
    assert same(outputs, only_cross) == [True] * STEPS
    assert set(unet.rows) == {4}
    assert events(gating) == [("layout", 0)]
    assert "layout='uncond_first'" in gating.report.events[0].message


def test_rows_that_do_not_split_keep_guidance_open_with_one_event(kit: Any) -> None:
    """Three rows are no pair of branches."""
    unet = kit.Affine()
    samples, text = inputs(rows=4)
    samples = [s[:3] for s in samples]
    with tg.gate(unet, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
        kit.drive(gating, unet, samples, text[:3], TIMES)
    assert set(unet.rows) == {3}
    assert events(gating) == [("layout", 0)]


@pytest.mark.parametrize("at", range(1, STEPS))
def test_a_change_of_shape_in_a_run_is_computed_in_full(kit: Any, at: int) -> None:
    """Latents that grow on the way: the first call of the new size drops what was kept, computes,
    stores, and the gates close again after it."""
    samples, text = inputs()
    samples = [s if i < at else s.repeat(1, 1, 2, 2) for i, s in enumerate(samples)]
    unet = kit.Affine()
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        outputs = kit.drive(gating, unet, samples, text, TIMES)
    full = bare(kit, samples, text)
    if at >= 2:
        assert torch.equal(outputs[at], full[at])
        assert unet.rows[at] == 4
    if at == 1:
        assert unet.rows == [4, 4, 2, 2, 2, 2]
    elif at < STEPS - 1:
        assert unet.rows[at + 1] == 2
    assert [o.shape for o in outputs] == [f.shape for f in full]
    assert ("shape", at) in events(gating)


def test_a_change_of_batch_in_a_run_is_computed_in_full(kit: Any) -> None:
    """The last prompt of a batch may drop out on the way."""
    samples, text = inputs(rows=4)
    unet = kit.Affine()
    outputs = []
    with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            rows = slice(None) if i < 3 else slice(None, None, 2)
            outputs.append(unet(samples[i][rows], t, encoder_hidden_states=text[rows]))
    assert unet.rows == [4, 2, 2, 2, 1, 1]
    expected = unet(samples[3][::2], TIMES[3], encoder_hidden_states=text[::2])
    assert torch.equal(outputs[3], expected)


def test_a_change_of_dtype_in_a_run_is_computed_in_full(kit: Any) -> None:
    """What was kept in float32 is not mixed into float64."""
    samples, text = inputs()
    samples = [s if i < 4 else s.double() for i, s in enumerate(samples)]
    unet = kit.Affine()
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        outputs = kit.drive(gating, unet, samples, text, TIMES)
    assert unet.rows == [4, 4, 2, 2, 4, 2]
    assert [o.dtype for o in outputs] == [torch.float32] * 4 + [torch.float64] * 2
    assert ("shape", 4) in events(gating)


def test_a_rising_noise_level_opens_everything_for_a_step(kit: Any) -> None:
    """Restart sampling: where sigma goes up by more than 5 % all gates open, for that step."""
    unet = kit.Affine()
    samples, text = inputs()
    sigmas = [10.0, 5.0, 2.0, 1.0, 4.0, 2.0]
    with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
        for i, t in enumerate(gating.steps(TIMES, sigmas=sigmas)):
            unet(samples[i], t, encoder_hidden_states=text)
    assert unet.rows == [4, 2, 2, 2, 4, 2]
    assert gating.report.steps[4].decision.reason.startswith("noise level rises")


def test_under_autograd_nothing_is_gated(kit: Any) -> None:
    """A sample that needs a gradient runs in full, its gradient is the bare one, and one event says
    how to have it gated."""
    samples, text = inputs()
    grads = []
    for gate in (False, True):
        unet = kit.Affine()
        leaf = samples[0].clone().requires_grad_()
        if gate:
            with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
                out = sum(
                    unet(leaf * t, t, encoder_hidden_states=text).sum() for t in gating.steps(TIMES)
                )
            assert unet.rows == [4] * STEPS
            assert [e.kind for e in gating.events] == ["outside"]
            assert "no_grad" in gating.events[0].message
            assert gating.runs == []
        else:
            out = sum(unet(leaf * t, t, encoder_hidden_states=text).sum() for t in TIMES)
        out.backward()  # type: ignore[union-attr]
        grads.append(leaf.grad)
    assert torch.equal(*grads)


# -- the loop -----------------------------------------------------------------------------------


def test_a_call_outside_the_loop_runs_bare_with_one_event(kit: Any) -> None:
    """Before, after and between loops the backbone is its bare self; the event names steps()."""
    samples, text = inputs()
    expected = bare(kit, samples, text)[0]
    unet = kit.Affine()
    with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
        outside = [unet(samples[0], TIMES[0], encoder_hidden_states=text)]
        kit.drive(gating, unet, samples, text, TIMES)
        outside.append(unet(samples[0], TIMES[0], encoder_hidden_states=text))
        assert gating.cache_bytes == 0
    assert all(torch.equal(o, expected) for o in outside)
    assert [e.kind for e in gating.events] == ["outside"]
    assert "gating.steps(timesteps)" in gating.events[0].message


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
def test_a_loop_broken_off_ends_its_run(kit: Any, held: bool) -> None:
    """After `break` the next loop is a fresh run and outside calls are bare, also where somebody
    still holds the first loop's iterator."""
    samples, text = inputs()
    expected, _, _ = gated(kit, "fixed_step", gate_step=2)
    outside = bare(kit, samples, text)[0]
    unet = kit.Affine()
    iterators = []
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        steps = gating.steps(TIMES)
        if held:
            iterators.append(steps)
        for i, t in enumerate(steps):
            unet(samples[i], t, encoder_hidden_states=text)
            if i == 3:
                break
        del steps
        outputs = kit.drive(gating, unet, samples, text, TIMES)
        assert torch.equal(unet(samples[0], TIMES[0], encoder_hidden_states=text), outside)
        assert gating.cache_bytes == 0
    assert same(outputs, expected) == [True] * STEPS
    assert [(len(r.steps), r.complete) for r in gating.runs] == [(4, False), (6, True)]


def test_a_broken_loop_that_is_dropped_late_does_not_end_the_next(kit: Any) -> None:
    """Its iterator may be collected in the middle of the next run."""
    samples, text = inputs()
    expected, _, _ = gated(kit, "fixed_step", gate_step=2)
    unet = kit.Affine()
    outputs = []
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        first = gating.steps(TIMES)
        next(first)
        unet(samples[0], TIMES[0], encoder_hidden_states=text)
        for i, t in enumerate(gating.steps(TIMES)):
            outputs.append(unet(samples[i], t, encoder_hidden_states=text))
            if i == 3:
                del first
    assert same(outputs, expected) == [True] * STEPS
    assert [r.complete for r in gating.runs] == [False, True]


def test_the_block_s_end_ends_a_loop(kit: Any) -> None:
    """An iterator that outlives its `with` goes on, over a backbone that is bare again."""
    unet = kit.Affine()
    samples, text = inputs()
    with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        steps = gating.steps(TIMES)
        next(steps)
        unet(samples[0], TIMES[0], encoder_hidden_states=text)
    assert gating.runs[0].complete is False
    rest = [unet(samples[i + 1], t, encoder_hidden_states=text) for i, t in enumerate(steps)]
    assert same(rest, bare(kit, samples, text)[1:]) == [True] * (STEPS - 1)
    assert len(gating.runs) == 1


def test_two_calls_in_a_step_have_caches_of_their_own(kit: Any) -> None:
    """Tiles: the first call of a step reuses what the first kept, the second the second's."""
    samples, text = inputs()
    other = torch.randn(text.shape, generator=torch.Generator().manual_seed(9))
    unet = kit.Affine()
    tiles: list[list[torch.Tensor]] = [[], []]
    with tg.gate(unet, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
        for i, t in enumerate(gating.steps(TIMES)):
            for tile, words in zip(tiles, (text, other), strict=True):
                tile.append(unet(samples[i], t, encoder_hidden_states=words))
    for tile, words in zip(tiles, (text, other), strict=True):
        alone = kit.Affine()
        with tg.gate(alone, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
            assert same(tile, kit.drive(gating, alone, samples, words, TIMES)) == [True] * STEPS


def test_a_gating_may_be_entered_again(kit: Any) -> None:
    """The same object gates a second block as it did the first."""
    samples, text = inputs()
    unet = kit.Affine()
    gating = tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first")
    results = []
    for _ in range(2):
        with gating:
            results.append(kit.drive(gating, unet, samples, text, TIMES))
    assert same(*results) == [True] * STEPS
    assert [r.complete for r in gating.runs] == [True, True]
