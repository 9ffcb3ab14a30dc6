"""The models that come with the package, loaded as anybody would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgate_zoo import evaluate, loader, scenes
from tgate_zoo.classifier import load_classifier

diffusers = pytest.importorskip("diffusers")


CLASSES = {
    "emoji-lcm": "LatentConsistencyModelPipeline",
    "emoji-pixart": "PixArtAlphaPipeline",
    "emoji-sd": "StableDiffusionPipeline",
    "emoji-sdxl": "StableDiffusionXLPipeline",
}
# What a plain pipeline of the library has to be told for pictures of 32 pixels.
CALL: dict[str, dict[str, Any]] = {
    "emoji-pixart": {"use_resolution_binning": False, "clean_caption": False}
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.set_num_threads(1)
    return loader.load("emoji-sd")


@pytest.fixture(scope="module", params=sorted(CLASSES))
def each(request: pytest.FixtureRequest) -> Any:
    torch.set_num_threads(1)
    return request.param, loader.load(request.param)


def test_the_zoo_names_its_models() -> None:
    assert loader.zoo_models() == tuple(sorted(CLASSES))
    assert (loader.model_path("emoji-sd") / "model_index.json").is_file()


def test_the_defaults_are_a_models_own() -> None:
    found = {name: loader.defaults(name) for name in CLASSES}
    few, many = {"steps": 4, "guidance": 4.0}, {"steps": 25, "guidance": 4.0}
    assert found == {name: few if name == "emoji-lcm" else many for name in CLASSES}
    with pytest.raises(loader.UnknownModelError, match="emoji-sd"):
        loader.defaults("emoji_sd")


def test_each_loads_as_the_class_it_names_and_draws_when_given_a_prompt_only(each: Any) -> None:
    name, loaded = each
    assert type(loaded).__name__ == CLASSES[name]
    assert isinstance(loaded, getattr(diffusers, CLASSES[name]))
    weights = [p for part in loaded.components.values() for p in _parameters(part)]
    assert {p.dtype for p in weights} == {torch.float32}
    result = loaded(scenes.PROMPTS[0], num_inference_steps=2, output_type="pt")
    assert result.images.shape == (1, 3, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)
    assert torch.isfinite(result.images).all()


def _parameters(part: Any) -> list[Any]:
    return list(part.parameters()) if isinstance(part, torch.nn.Module) else []


def test_each_is_an_ordinary_folder_that_draws_the_same(each: Any) -> None:
    name, loaded = each
    plain = getattr(diffusers, CLASSES[name]).from_pretrained(loader.model_path(name))
    plain.set_progress_bar_config(disable=True)

    def draw(pipeline: Any, **options: Any) -> torch.Tensor:
        torch.manual_seed(0)
        images: torch.Tensor = pipeline(
            scenes.PROMPTS[1], num_inference_steps=3, output_type="pt", **options
        ).images
        return images

    assert torch.allclose(draw(plain, **CALL.get(name, {})), draw(loaded), atol=1e-4)


def test_half_precision_is_given_when_asked_for() -> None:
    loaded = loader.load("emoji-pixart", torch.bfloat16)
    assert loaded.transformer.dtype == loaded.text_encoder.dtype == torch.bfloat16


def test_what_pixart_saves_is_an_ordinary_pipeline(tmp_path: Path) -> None:
    loader.load("emoji-pixart").save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "PixArtAlphaPipeline"
    assert isinstance(
        diffusers.DiffusionPipeline.from_pretrained(tmp_path), diffusers.PixArtAlphaPipeline
    )


def test_pixart_still_does_what_it_is_told() -> None:
    """An argument that is given wins: binning knows no picture this small."""
    loaded = loader.load("emoji-pixart")
    with pytest.raises(ValueError, match="Invalid sample size"):
        loaded(scenes.PROMPTS[0], num_inference_steps=1, use_resolution_binning=True)


def test_all_models_together_are_small() -> None:
    files = [path for path in loader.MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30_000_000


def test_all_share_one_autoencoder() -> None:
    weights = {
        (loader.model_path(name) / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in CLASSES
    }
    assert len(weights) == 1


def test_an_unknown_name_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(
        loader.UnknownModelError, match="no model 'emoji_sd'; the nearest is emoji-sd,"
    ):
        loader.model_path("emoji_sd")


def test_an_empty_zoo_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(loader.UnknownModelError, match="train emoji-sd"):
        loader.model_path("emoji-sd", tmp_path)


# Newer versions of diffusers call the argument `dtype` and take the older name with a warning.
@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
@pytest.mark.parametrize("options", [{}, {"torch_dtype": torch.float32}])
def test_plain_from_pretrained_draws_a_picture(options: dict[str, Any]) -> None:
    plain = diffusers.StableDiffusionPipeline.from_pretrained(
        loader.model_path("emoji-sd"), **options
    )
    plain.set_progress_bar_config(disable=True)
    result = plain(scenes.PROMPTS[0], num_inference_steps=2, output_type="np")
    assert result.images.shape == (1, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3)
    assert np.isfinite(result.images).all()
    assert plain.safety_checker is None
    assert isinstance(plain.scheduler, diffusers.DDIMScheduler)


def test_the_pipeline_has_cross_attention_at_every_level(pipeline: Any) -> None:
    names = [name for name, _ in pipeline.unet.named_modules()]
    assert sum(name.endswith("attn1") for name in names) == 7
    assert sum(name.endswith("attn2") for name in names) == 7
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float32}


def test_the_folder_is_small() -> None:
    files = [path for path in loader.model_path("emoji-sd").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    classifier = loader.MODELS / "emoji-classifier" / "model.safetensors"
    assert classifier.stat().st_size <= 1_500_000


def test_held_out_captions_come_out_right(each: Any) -> None:
    name, loaded = each
    drawn = [scene for scene in evaluate.held_out_scenes(16) if scene.second is None]
    pictures = evaluate.generate(
        loaded, [scene.caption for scene in drawn], **loader.defaults(name)
    )
    verdicts = evaluate.judge(load_classifier(loader.MODELS / "emoji-classifier"), drawn, pictures)
    assert len(verdicts) == 8
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert sum(verdict.background for verdict in verdicts) >= 7
    assert sum(verdict.objects for verdict in verdicts) >= 4


def test_a_picture_does_not_depend_on_its_batch(pipeline: Any) -> None:
    captions = scenes.PROMPTS[:3]
    together = evaluate.generate(pipeline, captions, steps=3, batch=3)
    apart = evaluate.generate(pipeline, captions, steps=3, batch=2)
    assert torch.allclose(together, apart, atol=1e-4)
