"""Latent consistency distillation: each formula against another way to compute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tgate_zoo import scenes
from tgate_zoo.recipe import consistency, lcm, text, unet, vae
from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.denoise import NOISE, LatentPool, Settings, signal_shares

diffusers = pytest.importorskip("diffusers")

TINY = unet.CONFIG | {"block_out_channels": (16, 16), "attention_head_dim": 2}
FEW = Settings(batch=4, peak_rate=1e-3, warmup=1)


@pytest.fixture(scope="module")
def base() -> unet.Denoiser:
    torch.manual_seed(0)
    return unet.build_denoiser(text.build_tokenizer(scenes.vocabulary()), 4, TINY)


@pytest.fixture(scope="module")
def teacher(base: unet.Denoiser) -> lcm.Teacher:
    return lcm.Teacher(base.unet, base.text_encoder)


@pytest.fixture(scope="module")
def pool() -> LatentPool:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(12, vae.LATENT_CHANNELS, 4, 4, generator=generator).half()
    tokenizer = text.build_tokenizer(scenes.vocabulary())
    tokens = text.encode_captions(tokenizer, [s.caption for s in scenes.draw_scenes(12, 0)])
    empty = text.encode_captions(tokenizer, [""])[0]
    return LatentPool(means, torch.full_like(means, 0.1), tokens, empty)


def scheduler() -> Any:
    return diffusers.LCMScheduler(**NOISE, original_inference_steps=consistency.GRID)


def moved_student(teacher: lcm.Teacher) -> Any:
    """A student whose guidance input and weights are no longer those it started with."""
    torch.manual_seed(5)
    student = lcm.build_student(teacher.unet)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return student


def test_the_guidance_input_is_the_pipelines() -> None:
    guidance = torch.tensor([1.0, 2.5, 9.0])
    pipeline = diffusers.LatentConsistencyModelPipeline
    theirs = pipeline.get_guidance_scale_embedding(None, guidance - 1, consistency.GUIDANCE_WIDTH)
    assert torch.allclose(consistency.embed_guidance(guidance), theirs, atol=2e-3)


@pytest.mark.parametrize("timestep", [0, 19, 499, 999])
def test_the_boundary_scalings_are_the_schedulers(timestep: int) -> None:
    theirs = scheduler().get_scalings_for_boundary_condition_discrete(timestep)
    ours = consistency.boundary(torch.tensor([timestep]))
    assert [float(value) for value in ours] == pytest.approx([float(value) for value in theirs])


def test_at_timestep_zero_the_answer_is_the_question() -> None:
    noisy, noise = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    zero = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(consistency.consistent(noisy, noise, zero, signal_shares()), noisy)


def test_the_consistency_function_is_what_the_scheduler_calls_denoised() -> None:
    stepper = scheduler()
    stepper.set_timesteps(4)
    torch.manual_seed(0)
    noisy, noise = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    timestep = stepper.timesteps[0]
    theirs = stepper.step(noise, timestep, noisy).denoised
    ours = consistency.consistent(noisy, noise, timestep[None], signal_shares())
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_scheduler_stops_at_points_of_the_training_grid() -> None:
    stepper = scheduler()
    grid = {(place + 1) * consistency.STRIDE - 1 for place in range(consistency.GRID)}
    for steps in (1, 4, 8):
        stepper.set_timesteps(steps)
        assert set(stepper.timesteps.tolist()) <= grid


def test_a_fresh_student_is_the_teacher_without_its_middle(teacher: lcm.Teacher) -> None:
    student = lcm.build_student(teacher.unet)
    shorter = diffusers.UNet2DConditionModel(**TINY, sample_size=4, mid_block_type=None)
    shorter.load_state_dict(teacher.unet.state_dict(), strict=False)
    torch.manual_seed(0)
    noisy, times = torch.randn(2, 8, 4, 4), torch.tensor([10, 900])
    states = torch.randn(2, 5, text.TEXT_WIDTH)
    embedded = consistency.embed_guidance(torch.tensor([2.0, 9.0]))
    with torch.no_grad():
        ours = student(noisy, times, states, timestep_cond=embedded).sample
        theirs = shorter(noisy, times, states).sample
        full = teacher.unet(noisy, times, states).sample
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, full, atol=1e-3)


def by_hand(
    pair: lcm.Distiller, teacher: lcm.Teacher, pool: LatentPool, rows: Tensor, seed: int
) -> float:
    """The consistency loss sample by sample, in the words of the paper's algorithm 1."""
    torch.manual_seed(seed)
    spread = torch.randn(len(rows), vae.LATENT_CHANNELS, 4, 4)
    places = torch.randint(0, consistency.GRID, (len(rows),))
    noise = torch.randn_like(spread)
    scales = lcm.GUIDANCE_RANGE[0] + 7 * torch.rand(len(rows))
    alphas, stepper = signal_shares().double(), scheduler()
    distances = []
    for i, row in enumerate(rows):
        start = 20 * (int(places[i]) + 1) - 1
        end = max(start - 20, 0)
        a, b = alphas[start], alphas[end]
        z = pool.means[row].double() + pool.deviations[row].double() * spread[i].double()
        z = (a.sqrt() * z + (1 - a).sqrt() * noise[i].double())[None]
        states = teacher.text_encoder(pool.tokens[row][None])[0]
        empty = teacher.text_encoder(pool.empty[None])[0]
        w = scales[i : i + 1]
        cond, uncond = (teacher.unet(z.float(), start, s).sample.double() for s in (states, empty))
        # The paper's scale is one less than the pipeline's.
        guided = cond + (w.double() - 1) * (cond - uncond)
        moved = b.sqrt() * (z - (1 - a).sqrt() * guided) / a.sqrt() + (1 - b).sqrt() * guided

        def f(model: Any, x: Tensor, time: int, share: Tensor, s: Tensor, w: Tensor) -> Tensor:
            given = consistency.embed_guidance(w)
            eps = model(x.float(), time, s, timestep_cond=given).sample.double()
            skip, out = stepper.get_scalings_for_boundary_condition_discrete(time)
            return float(skip) * x + float(out) * (x - (1 - share).sqrt() * eps) / share.sqrt()

        error = f(pair.student, z, start, a, states, w) - f(pair.target, moved, end, b, states, w)
        distances.append(((error**2 + 0.001**2).sqrt() - 0.001).mean())
    return float(torch.stack(distances).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_the_papers(teacher: lcm.Teacher, pool: LatentPool, seed: int) -> None:
    pair, rows = lcm.Distiller(moved_student(teacher)), torch.tensor([3, 0, 7])
    with torch.no_grad():
        for parameter in pair.target.parameters():
            parameter += 0.01
        expected = by_hand(pair, teacher, pool, rows, seed)
        torch.manual_seed(seed)
        ours = lcm.consistency_loss(pair, teacher, pool, rows, signal_shares())
        torch.manual_seed(seed)
        offender = lcm.Distiller(pair.student)
        without_target = lcm.consistency_loss(offender, teacher, pool, rows, signal_shares())
    assert float(ours) == pytest.approx(expected, rel=1e-4)
    assert float(without_target) != pytest.approx(expected, rel=1e-3)


def test_only_the_student_learns(teacher: lcm.Teacher, pool: LatentPool) -> None:
    pair = lcm.Distiller(moved_student(teacher))
    lcm.consistency_loss(pair, teacher, pool, torch.tensor([1, 2]), signal_shares()).backward()
    assert all(p.grad is not None for p in pair.student.parameters())
    assert all(p.grad is None for p in pair.target.parameters())
    assert all(p.grad is None for p in teacher.unet.parameters())


def test_the_slow_copy_follows_a_twentieth_of_the_way(teacher: lcm.Teacher) -> None:
    pair = lcm.Distiller(lcm.build_student(teacher.unet))
    with torch.no_grad():
        pair.student.conv_in.bias += 1.0
    before = pair.target.conv_in.bias.clone()
    pair.follow()
    assert torch.allclose(pair.target.conv_in.bias - before, torch.full_like(before, 0.05))


def test_matching_is_exact_for_a_student_that_knows(base: unet.Denoiser, pool: LatentPool) -> None:
    """Guidance 1 is the caption alone: a teacher's own copy has nothing to learn."""
    teacher = lcm.Teacher(base.unet, base.text_encoder)
    states = teacher.states(pool.tokens[:2])
    noisy, times = torch.randn(2, 8, 4, 4), torch.tensor([100, 700])
    one = teacher.guided(noisy, times, states, teacher.states(pool.empty[None]), torch.ones(2))
    with torch.no_grad():
        alone = base.unet(noisy, times, states).sample
    assert torch.allclose(one, alone, atol=1e-5)


@pytest.mark.parametrize("train", [lcm.train_match, lcm.train_distill])
def test_a_resumed_distillation_gives_the_weights_of_a_straight_one(
    train: Any, teacher: lcm.Teacher, pool: LatentPool, tmp_path: Path
) -> None:
    def run(name: str, stop_at: int | None = None) -> dict[str, Tensor]:
        student, budget = lcm.build_student(teacher.unet), Budget(steps=4)
        trained = train(
            student, teacher, pool, tmp_path / name, budget, settings=FEW, stop_at=stop_at
        )
        state: dict[str, Tensor] = trained.state_dict()
        return state

    straight = run("straight.pt")
    run("resumed.pt", stop_at=2)
    resumed = run("resumed.pt")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    started = lcm.build_student(teacher.unet).state_dict()
    assert not all(torch.equal(straight[name], started[name]) for name in straight)
