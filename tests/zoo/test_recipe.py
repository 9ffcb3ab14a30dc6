"""The recipe's parts on tiny inputs: no font, no trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tgate_zoo import card, evaluate, loader, scenes
from tgate_zoo.classifier import load_classifier
from tgate_zoo.recipe import denoise, files, latents, models, pixart, pool, sdxl, text, unet, vae
from tgate_zoo.recipe.clock import Budget, warmup_cosine
from tgate_zoo.recipe.ema import Average
from tgate_zoo.recipe.place import Recipe, Sizes
from tgate_zoo.recipe.stages import RECIPES, run_stage

TINY: dict[str, dict[str, object]] = {
    "emoji-sd": unet.CONFIG | {"block_out_channels": (16, 16), "attention_head_dim": 2},
    "emoji-sdxl": sdxl.CONFIG | {"block_out_channels": (8, 16), "attention_head_dim": 2},
    "emoji-pixart": pixart.CONFIG
    | {"num_layers": 1, "attention_head_dim": 4, "cross_attention_dim": 16},
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY_VAE = vae.CONFIG | {"block_out_channels": (8, 8, 8)}
PLAIN = {model.name: model for model in (models.SD, models.SDXL, models.PIXART)}
FEW = denoise.Settings(batch=4, peak_rate=1e-3, warmup=2)


def tiny_pool(tokenizer: object, count: int = 12) -> denoise.LatentPool:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(count, vae.LATENT_CHANNELS, 4, 4, generator=generator).half()
    captions = [scene.caption for scene in scenes.draw_scenes(count, 0)]
    tokens = text.encode_captions(tokenizer, captions)
    empty = text.encode_captions(tokenizer, [""])[0]
    return denoise.LatentPool(means, torch.full_like(means, 0.1), tokens, empty)


def build_tiny(name: str) -> tuple[torch.nn.Module, denoise.LatentPool]:
    tokenizer = PLAIN[name].tokenizer()
    torch.manual_seed(0)
    model = PLAIN[name].build(tokenizer, 4, TINY[name])
    return model, tiny_pool(tokenizer)


def train_tiny(
    checkpoint: Path, stop_at: int | None = None, name: str = "emoji-sd"
) -> dict[str, torch.Tensor]:
    model, latents_pool = build_tiny(name)
    trained = denoise.train_denoiser(
        model, latents_pool, checkpoint, Budget(steps=4), FEW, stop_at=stop_at
    )
    return trained.state_dict()


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_two_steps_and_a_resume_give_the_weights_of_four_straight_steps(
    tmp_path: Path, name: str
) -> None:
    straight = train_tiny(tmp_path / "straight.pt", name=name)
    train_tiny(tmp_path / "resumed.pt", stop_at=2, name=name)
    resumed = train_tiny(tmp_path / "resumed.pt", name=name)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_the_loss_reads_the_caption_and_falls(name: str) -> None:
    model, latents_pool = build_tiny(name)
    shares, rows = denoise.signal_shares(), torch.arange(12)

    def loss(dropped: bool) -> torch.Tensor:
        torch.manual_seed(3)
        return denoise.denoising_loss(model, latents_pool, rows, torch.full((12,), dropped), shares)

    optimizer = FEW.step(model, model, lambda rng: loss(False)).optimizer
    first = loss(False).item()
    for _ in range(8):
        optimizer.zero_grad()
        loss(False).backward()
        optimizer.step()
    assert loss(False).item() < first
    assert not torch.equal(loss(False), loss(True))


def test_the_loss_is_the_weighted_error_of_the_noise() -> None:
    class Silent(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, times: object, tokens: object) -> torch.Tensor:
            return torch.zeros_like(noisy)

    latents_pool = tiny_pool(text.build_tokenizer(scenes.vocabulary()))
    rows, shares = torch.arange(12), denoise.signal_shares()
    torch.manual_seed(7)
    ours = denoise.denoising_loss(Silent(), latents_pool, rows, rows > 20, shares)
    torch.manual_seed(7)
    torch.randn(12, vae.LATENT_CHANNELS, 4, 4)
    ratio = [float(a / (1 - a)) for a in shares[torch.randint(0, 1000, (12,))]]
    noise = torch.randn(12, vae.LATENT_CHANNELS, 4, 4)
    expected = [min(r, 5.0) / r * float((n**2).mean()) for r, n in zip(ratio, noise, strict=True)]
    assert float(ours) == pytest.approx(sum(expected) / 12, rel=1e-5)


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


def test_every_word_is_one_piece_of_the_t5_tokenizer_and_captions_fit() -> None:
    tokenizer = pixart.build_tokenizer()
    for word in scenes.vocabulary():
        assert len(tokenizer(word).input_ids) == 2
    longest = max(scenes.pair_scenes(False), key=lambda scene: len(scene.caption.split()))
    tokens = text.encode_captions(tokenizer, [longest.caption, "", "a zebra"])
    assert tokens.shape == (3, 16)
    assert tokenizer.decode(tokens[0], skip_special_tokens=True) == longest.caption
    assert tokens[1].tolist() == [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * 15
    assert tokenizer.unk_token_id not in tokens[2]


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
        ("paint", "emoji-sd has no stage 'paint'; give one of scenes, vae, classifier, unet"),
    ],
)
def test_a_stage_that_cannot_run_says_what_to_type(
    tmp_path: Path, stage: str, message: str
) -> None:
    recipe = Recipe(out=tmp_path, work=tmp_path, font=Path("/nowhere/NotoColorEmoji.ttf"))
    with pytest.raises((scenes.FontMissingError, FileNotFoundError, ValueError), match=message):
        run_stage(recipe, stage)


@pytest.mark.skipif(not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}")
def test_all_recipes_make_models_that_can_be_measured(tmp_path: Path) -> None:
    sizes = Sizes(train=40, classifier=(8, 8), test=(8, 8), centre=16)
    said: list[str] = []
    recipe = Recipe(
        out=tmp_path / "models", work=tmp_path / "work", steps=1, sizes=sizes, say=said.append
    )
    models_folder, drawn = tmp_path / "models", evaluate.held_out_scenes(4)
    for name, stages in RECIPES.items():
        for stage in stages:
            run_stage(recipe, stage, name)
        batch = card.read_facts(models_folder / name)["training"]["batch"]
        assert f"{name}: " in said[-1]
        assert f"after 1 steps, {batch} samples" in said[-1]
        pipeline = loader.load(name, folder=models_folder)
        reader = load_classifier(models_folder / "emoji-classifier")
        pictures = evaluate.generate(pipeline, [scene.caption for scene in drawn], steps=2)
        shares = evaluate.summarize(evaluate.judge(reader, drawn, pictures))
        assert all(0 <= share <= 1 for share in shares.values())
        assert "measured" not in card.read_facts(models_folder / name)
    made = {(models_folder / name / "vae" / WEIGHTS).read_bytes() for name in RECIPES}
    assert len(made) == 1


def test_another_seed_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train_tiny(tmp_path / "state.pt", stop_at=1)
    model, latents_pool = build_tiny("emoji-sd")
    with pytest.raises(ValueError, match="begun with seed 0 and seed 1 is asked for"):
        denoise.train_denoiser(
            model, latents_pool, tmp_path / "state.pt", Budget(steps=4), FEW, seed=1
        )


def test_latents_of_another_autoencoder_are_made_anew(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    tokenizer = text.build_tokenizer(scenes.vocabulary())

    def means(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = vae.build_vae(16, TINY_VAE).eval()
        path = tmp_path / "latents.pt"
        return latents.latent_pool(path, model, images, ["a", "b", "c"], tokenizer).means

    first, again, other = means(0), means(0), means(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pixart_begins_with_silent_captions_and_no_noise() -> None:
    """The start of PixArt: neither the caption nor the output layer says anything yet."""
    model, latents_pool = build_tiny("emoji-pixart")
    noisy, times = torch.randn(2, vae.LATENT_CHANNELS, 4, 4), torch.tensor([5, 500])
    with torch.no_grad():
        assert not model(noisy, times, latents_pool.tokens[:2]).any()


def test_padding_says_nothing_to_pixart() -> None:
    """Longer padding, as the pipeline's own 120 tokens, gives the same states and noise."""
    model, latents_pool = build_tiny("emoji-pixart")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    noisy, times = torch.randn(2, vae.LATENT_CHANNELS, 4, 4), torch.tensor([5, 500])
    tokens = latents_pool.tokens[:2]
    longer = torch.cat([tokens, torch.zeros(2, 50, dtype=torch.int64)], dim=1)
    other = torch.cat([tokens, torch.full((2, 1), 7)], dim=1)
    with torch.no_grad():
        short = model(noisy, times, tokens)
        assert torch.allclose(model(noisy, times, longer), short, atol=1e-5)
        assert not torch.allclose(model(noisy, times, other), short, atol=1e-3)
