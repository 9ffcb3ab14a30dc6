"""The models that come with the package, loaded as anybody would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgate_zoo import evaluate, loader, scenes
from tgate_zoo.classifier import load_classifier

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    torch.set_num_threads(1)
    return loader.load("emoji-sd")


def test_the_zoo_names_its_models() -> None:
    assert "emoji-sd" in loader.zoo_models()
    assert (loader.model_path("emoji-sd") / "model_index.json").is_file()


def test_an_unknown_name_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(loader.UnknownModelError, match=r"no model 'emoji_sd'.*emoji-sd\.$"):
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


def test_held_out_captions_come_out_right(pipeline: Any) -> None:
    drawn = [scene for scene in evaluate.held_out_scenes(16) if scene.second is None]
    pictures = evaluate.generate(pipeline, [scene.caption for scene in drawn])
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
