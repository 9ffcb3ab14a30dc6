"""The recipe's parts on tiny inputs: no font, no trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tgate_zoo import card, evaluate, loader, scenes
from tgate_zoo.classifier import load_classifier
from tgate_zoo.recipe import files, latents, pool, text, unet, vae
from tgate_zoo.recipe.clock import Budget, warmup_cosine
from tgate_zoo.recipe.ema import Average
from tgate_zoo.recipe.stages import STAGES, Recipe, Sizes, run_stage

TINY_UNET = unet.CONFIG | {"block_out_channels": (16, 16), "attention_head_dim": 2}
TINY_VAE = vae.CONFIG | {"block_out_channels": (8, 8, 8)}


def tiny_pool(tokenizer: object, count: int = 12) -> unet.LatentPool:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(count, vae.LATENT_CHANNELS, 4, 4, generator=generator).half()
    captions = [scene.caption for scene in scenes.draw_scenes(count, 0)]
    tokens = text.encode_captions(tokenizer, captions)
    empty = text.encode_captions(tokenizer, [""])[0]
    return unet.LatentPool(means, torch.full_like(means, 0.1), tokens, empty)


def train_tiny(checkpoint: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    tokenizer = text.build_tokenizer(scenes.vocabulary())
    torch.manual_seed(0)
    model = unet.build_denoiser(tokenizer, 4, TINY_UNET)
    trained = unet.train_unet(
        model, tiny_pool(tokenizer), checkpoint, Budget(steps=4), batch=4, stop_at=stop_at
    )
    return trained.state_dict()


def test_two_steps_and_a_resume_give_the_weights_of_four_straight_steps(tmp_path: Path) -> None:
    straight = train_tiny(tmp_path / "straight.pt")
    train_tiny(tmp_path / "resumed.pt", stop_at=2)
    resumed = train_tiny(tmp_path / "resumed.pt")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_resumed_learning_rate_continues_the_same_schedule() -> None:
    assert warmup_cosine(0, 0.0, warmup=10) == pytest.approx(0.1)
    assert warmup_cosine(10, 0.0, warmup=10) == 1.0
    assert warmup_cosine(10, 1.0, warmup=10) == pytest.approx(0.02)


def test_a_budget_counts_the_minutes_of_earlier_runs() -> None:
    time = iter([100.0, 100.0, 130.0])
    budget = Budget(minutes=2, spent=60, now=lambda: next(time))
    assert budget.progress(0) == pytest.approx(0.5)
    assert budget.progress(0) == pytest.approx(0.75)


def test_a_stage_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="give --steps or --minutes"):
        Budget()


def test_every_word_is_one_token_and_captions_fit() -> None:
    tokenizer = text.build_tokenizer(scenes.vocabulary())
    for word in scenes.vocabulary():
        assert len(tokenizer(word).input_ids) == 3
    longest = max(scenes.pair_scenes(False), key=lambda scene: len(scene.caption.split()))
    tokens = text.encode_captions(tokenizer, [longest.caption, ""])
    assert tokens.shape == (2, text.MAX_LENGTH)
    assert tokenizer.decode(tokens[0], skip_special_tokens=True) == longest.caption
    assert tokens[1].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 15


def test_centring_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    model = vae.build_vae(16, TINY_VAE).eval()
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    before = vae.reconstruction_psnr(model, images)
    factor = latents.centre_latents(model, images)
    means, deviations = vae.encode_all(model, images)
    spread = means.float().var(dim=(0, 2, 3)) + deviations.float().square().mean(dim=(0, 2, 3))
    assert vae.reconstruction_psnr(model, images) == pytest.approx(before, rel=1e-4)
    assert means.float().mean(dim=(0, 2, 3)).abs().max() < 1e-2
    assert spread.sqrt() * factor == pytest.approx(np.ones(vae.LATENT_CHANNELS), rel=1e-2)
    assert model.config.scaling_factor == factor


def test_the_average_follows_the_weights() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
        average = Average(module, decay=0.5)
        module.weight.fill_(1.0)
    average.update(module)
    average.copy_to(module)
    assert module.weight.item() == pytest.approx(0.9)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        files.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_swapping_a_folder_replaces_all_of_it(tmp_path: Path) -> None:
    old, new = tmp_path / "model", tmp_path / "next"
    for folder, name in ((old, "a"), (new, "b")):
        folder.mkdir()
        (folder / name).touch()
    files.swap_folder(new, old)
    assert [path.name for path in old.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.skipif(not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}")
def test_a_pool_is_rendered_once(tmp_path: Path) -> None:
    drawn = scenes.draw_scenes(4, 0)
    first = pool.cached_pool(tmp_path, "p", drawn, seed=0)
    written = (tmp_path / "p.npy").stat().st_mtime_ns
    again = pool.cached_pool(tmp_path, "p", drawn, seed=0)
    assert (tmp_path / "p.npy").stat().st_mtime_ns == written
    assert np.array_equal(first.images, again.images)
    other = pool.cached_pool(tmp_path, "p", scenes.draw_scenes(4, 1), seed=0)
    assert other.captions != first.captions


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("scenes", "apt-get install fonts-noto-color-emoji"),
        ("export", "--stage unet"),
        ("paint", "give one of scenes, vae, classifier, unet, export"),
    ],
)
def test_a_stage_that_cannot_run_says_what_to_type(
    tmp_path: Path, stage: str, message: str
) -> None:
    recipe = Recipe(out=tmp_path, work=tmp_path, font=Path("/nowhere/NotoColorEmoji.ttf"))
    with pytest.raises((scenes.FontMissingError, FileNotFoundError, ValueError), match=message):
        run_stage(recipe, stage)


@pytest.mark.skipif(not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}")
def test_all_stages_make_a_model_that_can_be_measured(tmp_path: Path) -> None:
    sizes = Sizes(train=40, classifier=(8, 8), test=(8, 8), centre=16)
    said: list[str] = []
    recipe = Recipe(
        out=tmp_path / "models", work=tmp_path / "work", steps=1, sizes=sizes, say=said.append
    )
    for stage in STAGES:
        run_stage(recipe, stage)
    assert "after 1 steps, 48 samples" in said[-1]
    pipeline = loader.load("emoji-sd", folder=tmp_path / "models")
    reader = load_classifier(tmp_path / "models" / "emoji-classifier")
    drawn = evaluate.held_out_scenes(4)
    pictures = evaluate.generate(pipeline, [scene.caption for scene in drawn], steps=2)
    shares = evaluate.summarize(evaluate.judge(reader, drawn, pictures))
    assert all(0 <= share <= 1 for share in shares.values())
    facts = card.read_facts(tmp_path / "models" / "emoji-sd")
    assert facts["training"]["samples"] == 48
    assert "measured" not in facts


def test_another_seed_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train_tiny(tmp_path / "state.pt", stop_at=1)
    tokenizer = text.build_tokenizer(scenes.vocabulary())
    model = unet.build_denoiser(tokenizer, 4, TINY_UNET)
    with pytest.raises(ValueError, match="begun with seed 0 and seed 1 is asked for"):
        unet.train_unet(model, tiny_pool(tokenizer), tmp_path / "state.pt", Budget(steps=4), seed=1)
