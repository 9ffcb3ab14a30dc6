"""Metrics with other people's weights: left out by name without them, measured with them."""

from __future__ import annotations

import shutil
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tgate_plugins.study import metrics
from tgate_plugins.study.metrics import alone, features, left_out, paired
from tgate_plugins.study.metrics.clip import _load, clip_score
from tgate_sampling.errors import OptionError
from tgate_zoo.loader import MODELS

BLACK = np.zeros((1, 32, 32, 3), np.float32)
WHITE = np.ones((1, 32, 32, 3), np.float32)
WITH_WEIGHTS = {"clip_score", "lpips", "fid_inception"}


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with empty caches and none of our variables; the folder of torch hub."""
    for name in ("TGATE_CLIP", "TGATE_LPIPS", "TGATE_INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    hub = tmp_path / "torch-hub"
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    (hub / "checkpoints").mkdir(parents=True)
    return hub / "checkpoints"


class Vgg(nn.Module):
    """StyleGAN's interface with a known answer: the mean of each colour of a picture over 255."""

    def forward(self, x: Tensor, resize_images: bool = True, return_lpips: bool = False) -> Tensor:
        if resize_images or not return_lpips:
            return torch.full([x.shape[0], 3], 1e6)
        return x.float().mean([2, 3]) / 255


class Inception(nn.Module):
    """StyleGAN's interface with a known answer: mean and largest value of an 8-bit picture."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        if not return_features or x.dtype != torch.uint8:
            return torch.full([x.shape[0], 2], 1e6)
        y = x.double()
        return torch.stack([y.mean([1, 2, 3]), y.amax([1, 2, 3])], 1)


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript itself
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of two small layers with random weights, saved as OpenAI's are."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    shutil.copytree(MODELS / "emoji-sd" / "tokenizer", folder, dirs_exist_ok=True)
    words = AutoTokenizer.from_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small
        | {
            "vocab_size": len(words),
            "max_position_embeddings": 12,
            "eos_token_id": words.eos_token_id,
        },
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"do_resize": true, "size": {"shortest_edge": 32}, "do_center_crop": true, '
        '"crop_size": {"height": 32, "width": 32}, "do_normalize": true, '
        '"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "resample": 3}'
    )
    return folder


def flipped(folder: Path, target: Path) -> Path:
    """The same CLIP with every text turned to the opposite direction."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    state = load_file(target / "model.safetensors")
    state["text_projection.weight"] = -state["text_projection.weight"]
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_without_weights_each_metric_is_left_out_by_name_with_the_cure() -> None:
    found = left_out()
    assert found.keys() == WITH_WEIGHTS
    for metric, variable in zip(
        sorted(found), ("TGATE_CLIP", "TGATE_INCEPTION", "TGATE_LPIPS"), strict=True
    ):
        assert "never downloaded" in found[metric]
        assert found[metric].endswith(f"set {variable} to it")
    assert not WITH_WEIGHTS & paired(BLACK, WHITE).keys()
    assert alone(BLACK, ["a"], model_is_zoo=False) == {}


def test_what_a_model_lacks_is_left_out_by_name_too() -> None:
    more = left_out(model_is_zoo=False, size=(16, 20)).keys() - WITH_WEIGHTS
    assert more == {"object", "background", "fid_classifier", "ms_ssim"}
    assert (
        "two scales need 22 px and the pictures are 16 x 20 px"
        in left_out(size=(16, 20))["ms_ssim"]
    )
    assert left_out(size=(32, 32)).keys() == WITH_WEIGHTS


def test_without_torchmetrics_ms_ssim_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert "pip install 'tgate-sampling[study]'" in left_out()["ms_ssim"]


@pytest.mark.parametrize(
    ("measure", "metric"),
    [
        (lambda: clip_score(BLACK, ["a"]), "clip_score"),
        (lambda: features(BLACK, "inception"), "fid_inception"),
    ],
)
def test_a_metric_asked_for_without_its_weights_says_what_to_get(measure: Any, metric: str) -> None:
    with pytest.raises(OptionError, match=f"{metric} was asked for, but its weights are not on"):
        measure()


@pytest.mark.parametrize("variable", ["TGATE_CLIP", "TGATE_LPIPS", "TGATE_INCEPTION"])
@pytest.mark.parametrize("value", ["/no/such/place", "no-such/model", "a:b"])
def test_a_variable_that_names_nothing_is_an_error_and_not_an_omission(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(OptionError, match=f"{variable} names '{value}', which is not"):
        left_out()


def test_a_folder_without_the_image_processor_is_no_clip(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clip_folder, tmp_path / "half")
    (tmp_path / "half" / "preprocessor_config.json").unlink()
    monkeypatch.setenv("TGATE_CLIP", str(tmp_path / "half"))
    with pytest.raises(OptionError, match="its tokenizer and its image processor"):
        left_out()


def test_lpips_is_the_squared_distance_of_the_networks_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of black and white 1 a colour, 3 in all; of a colour halved in one channel 0.25."""
    monkeypatch.setenv("TGATE_LPIPS", str(scripted(Vgg(), tmp_path / "vgg16.pt")))
    half = WHITE.copy()
    half[..., 1] = 0.5
    found = paired(np.concatenate([BLACK, WHITE, half]), np.concatenate([WHITE] * 3))
    assert found["lpips"] == pytest.approx([3.0, 0.0, 0.25], abs=1e-5)
    assert "lpips" not in left_out()


def test_lpips_is_measured_in_batches_like_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGATE_LPIPS", str(scripted(Vgg(), tmp_path / "vgg16.pt")))
    a, b = np.random.default_rng(0).random((2, 37, 8, 8, 3), dtype=np.float32)
    expected = ((a.mean((1, 2)) - b.mean((1, 2))) ** 2).sum(1)
    assert paired(a, b)["lpips"] == pytest.approx(expected, abs=1e-6)


def test_inception_is_given_eight_bit_pictures_as_fid_is_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGATE_INCEPTION", str(scripted(Inception(), tmp_path / "inception.pt")))
    pictures = np.concatenate([BLACK, WHITE, WHITE * np.float32(0.2)] * 6)  # 18: two batches
    found = features(pictures, "inception")
    assert found.dtype == np.float64
    assert found.tolist() == [[0, 0], [255, 255], [51, 51]] * 6
    assert "fid_inception" not in left_out()


@pytest.mark.parametrize(
    ("module", "name", "metric"),
    [
        (Vgg(), "vgg16_stylegan.pth", "lpips"),
        (Inception(), "inception-2015-12-05.pt", "fid_inception"),
    ],
)
def test_weights_among_torch_hubs_checkpoints_are_found(
    module: nn.Module, name: str, metric: str, bare_machine: Path
) -> None:
    scripted(module, bare_machine / name)
    assert left_out().keys() == WITH_WEIGHTS - {metric}


def test_a_file_that_is_not_torchscript_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vgg16.pt").write_bytes(b"not at all")
    monkeypatch.setenv("TGATE_LPIPS", str(tmp_path / "vgg16.pt"))
    with pytest.raises(
        OptionError, match=r"TGATE_LPIPS means the file .*, which is not TorchScript"
    ):
        paired(BLACK, WHITE)


CAPTIONS = ["a large apple on a blue background", "a cat left of a dog on a pink background"] * 20


def test_clip_score_is_a_hundred_cosines_cut_at_zero(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worked out from the parts of the model, one picture at a time, preprocessing by hand."""
    from transformers import AutoTokenizer, CLIPModel

    monkeypatch.setenv("TGATE_CLIP", str(clip_folder))
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.float32) / 255
    found = alone(images, CAPTIONS, model_is_zoo=False)["clip_score"]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    for i in (0, 1, 31, 32, 39):  # the last two are of the second batch
        words = tokenizer(CAPTIONS[i], truncation=True, max_length=12, return_tensors="pt")
        pixels = torch.from_numpy((images[i : i + 1] - 0.5) / 0.25).permute(0, 3, 1, 2)
        with torch.no_grad():
            text = model.text_projection(model.text_model(**words).pooler_output)
            picture = model.visual_projection(model.vision_model(pixels).pooler_output)
        cosine = float(torch.cosine_similarity(text, picture))
        assert found[i] == pytest.approx(100 * max(0.0, cosine), abs=1e-3)


def test_a_caption_and_its_opposite_cannot_both_score(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).random((8, 32, 32, 3), dtype=np.float32)
    monkeypatch.setenv("TGATE_CLIP", str(clip_folder))
    one = clip_score(images, CAPTIONS[:8])
    monkeypatch.setenv("TGATE_CLIP", str(flipped(clip_folder, tmp_path / "flipped")))
    other = clip_score(images, CAPTIONS[:8])
    assert np.minimum(one, other).tolist() == [0.0] * 8
    assert (np.maximum(one, other) > 0).all()
    assert np.maximum(one, other).max() <= 100


def test_pictures_of_any_size_and_captions_of_any_length_have_a_clip_score(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGATE_CLIP", str(clip_folder))
    images = np.random.default_rng(0).random((2, 48, 80, 3), dtype=np.float32)
    found = clip_score(images, ["a cat " * 50, ""])
    assert found.shape == (2,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "somebody/clip"])
def test_a_clip_in_the_hugging_face_cache_is_found_by_its_id(
    name: str, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hf" / f"models--{name.replace('/', '--')}"
    shutil.copytree(clip_folder, repository / "snapshots" / "0a1b")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b")
    if not name.startswith("openai/"):
        assert "clip_score" in left_out()
        monkeypatch.setenv("TGATE_CLIP", name)
    assert "clip_score" not in left_out()
    assert alone(BLACK, ["a cat"], model_is_zoo=False).keys() == {"clip_score"}


def test_the_front_door_lists_what_is_there_and_which_way_is_better() -> None:
    assert list(metrics.__all__) == sorted(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)
    measured = {*paired(BLACK, BLACK), *alone(BLACK, ["a"], model_is_zoo=True)}
    assert metrics.BETTER.keys() == measured | {"lpips", "clip_score"}


def test_nothing_here_asks_the_network(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with the switch HF_HUB_OFFLINE off."""

    def connect(self: socket.socket, address: Any) -> None:
        pytest.fail(f"connects to {address}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail(f"looks up {a}"))
    assert left_out().keys() == WITH_WEIGHTS
    _load.cache_clear()
    monkeypatch.setenv("TGATE_CLIP", str(clip_folder))
    assert alone(BLACK, ["a cat"], model_is_zoo=False).keys() == {"clip_score"}
