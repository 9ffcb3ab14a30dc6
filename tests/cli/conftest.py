"""A pipeline of milliseconds in a folder, and the command line as a function."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tgate_sampling as tg
from tgate_sampling._manager import manager
from tgate_sampling.testing import tiny_unet

pytest.importorskip("typer")
diffusers = pytest.importorskip("diffusers")

from tgate_plugins.cli import main  # noqa: E402  # after importorskip


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str


def run(*words: object) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., Answer]:
    """`cli("compare", "--model", folder)`, in this process."""
    return run


@pytest.fixture(autouse=True, scope="session")
def _wide() -> Iterator[None]:
    # Workers of pytest-xdist are given their terminal's width, and module fixtures run commands.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random StableDiffusionPipeline that draws 16 x 16 pictures."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = string.ascii_lowercase
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    # By way of files: transformers 4 makes a tokenizer of nothing else.
    words = tmp_path_factory.mktemp("words")
    (words / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(words, model_max_length=16),
        unet=tiny_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def _loaded(tiny: Path) -> Any:
    import torch

    from tgate_plugins.cli.models import load_pipeline

    return load_pipeline(str(tiny), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def pipe(_loaded: Any) -> Any:
    """The tiny pipeline, loaded; each test has a copy of its own."""
    return copy.deepcopy(_loaded)


@pytest.fixture
def new_policy() -> Iterator[Callable[[str, Callable[..., tg.Policy]], None]]:
    """`new_policy("name", factory)`, for the length of a test."""
    names = "tests/cli"

    def add(name: str, factory: Callable[..., tg.Policy]) -> None:
        manager().policies.add(name, factory, owner=names)

    yield add
    manager().policies.forget(names)


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Mapping[str, Any]]:
    """JSON that holds no NaN and no Infinity, which other readers refuse."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return lambda path: json.loads(path.read_text(), parse_constant=refuse)
