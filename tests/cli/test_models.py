"""Models by zoo name, folder and hub id; devices and dtypes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tgate_plugins.cli import models
from tgate_sampling.errors import OptionError, UnknownNameError
from tgate_zoo.loader import zoo_models
from tgate_zoo.scenes import PROMPTS

CPU = torch.device("cpu")


def test_a_folder_is_loaded_in_the_dtype_that_was_asked_for(tiny: Path) -> None:
    pipe = models.load_pipeline(str(tiny), device=CPU, dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16


def test_loading_is_silent(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models.load_pipeline(str(tiny), device=CPU, dtype=torch.float32)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif("emoji-sd" not in zoo_models(), reason="the zoo's model is not trained yet")
def test_the_zoo_is_loaded_by_name() -> None:
    pipe = models.load_pipeline("emoji-sd", device=CPU, dtype=torch.float32)
    assert pipe.unet.dtype == torch.float32


def test_a_name_that_is_nowhere_gets_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "zoo_models", lambda: ("emoji-sd",))
    with pytest.raises(UnknownNameError, match=r"no model is called 'emoji'.*mean 'emoji-sd'"):
        models.check_model("emoji")


def test_an_empty_zoo_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "zoo_models", lambda: ())
    with pytest.raises(UnknownNameError, match="is empty: give a folder, or a hub id"):
        models.check_model("emoji-sd")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_missing_folder_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(UnknownNameError, match="there is no folder"):
        models.check_model(name)


def test_a_folder_without_a_pipeline_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"it holds no model_index\.json"):
        models.check_model(str(tmp_path))


def test_a_hub_id_is_left_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, dtype: torch.dtype) -> Any:
        raise OSError(f"cannot reach {name}\nand a long explanation")

    models.check_model("owner/name")
    monkeypatch.setattr(models, "_from_pretrained", offline)
    with pytest.raises(UnknownNameError, match=r"could not be loaded \(cannot reach owner/name\)"):
        models.load_pipeline("owner/name", device=CPU, dtype=torch.float32)


def test_a_message_is_said_once_and_not_for_every_method() -> None:
    filters = models._Once()
    one, other = (logging.LogRecord("x", 30, "", 0, text, (), None) for text in ("one", "other"))
    assert [filters.filter(r) for r in (one, other, one, one)] == [True, True, False, False]


def test_loading_twice_filters_messages_once(tiny: Path) -> None:
    for _ in range(2):
        models.load_pipeline(str(tiny), device=CPU, dtype=torch.float32)
    for handler in logging.getLogger("diffusers").handlers:
        assert sum(isinstance(f, models._Once) for f in handler.filters) == 1


def test_the_zoos_own_prompts_go_with_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "zoo_models", lambda: ("emoji-sd",))
    assert set(models.default_prompts("emoji-sd")) <= set(PROMPTS)
    assert len(models.default_prompts("emoji-sd")) >= 4
    assert not set(models.default_prompts("owner/name")) & set(PROMPTS)


def test_auto_is_float32_on_a_cpu_and_half_elsewhere() -> None:
    assert models.pick_dtype("auto", CPU) == torch.float32
    assert models.pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert models.pick_dtype("bfloat16", CPU) == torch.bfloat16


def test_an_unknown_dtype_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'float16'"):
        models.pick_dtype("floot16", CPU)


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="cannot be used here"):
        models.pick_device(name)


def test_auto_finds_a_device() -> None:
    assert models.pick_device("auto").type in ("cpu", "cuda", "mps")
    assert models.pick_device("cpu") == CPU
