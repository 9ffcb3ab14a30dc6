"""Every method of the suite on pipelines of every shape: runs or says why, leaves no trace."""

from __future__ import annotations

import re

import pytest
import torch

from tests.conftest import load_helper

pytest.importorskip("diffusers", minversion="0.42")

from tgate_plugins.methods.spec import parse
from tgate_plugins.methods.suite import suite

for module in ("tgate", "DeepCache", "tomesd", "cache_dit"):
    pytest.importorskip(module, reason=f"NOT COMPARED: pip install --no-deps {module}")

homes = load_helper("methods/homes.py")
trial = load_helper("methods/tried.py")

# diffusers' schedulers hand tensors to numpy 2; huggingface's loader speaks of its parts.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

UNET = {
    "faster_cache": "halves what a call passes by position",
    "first_block_cache:threshold=0.2": "needs a list of transformer blocks",
    "mag_cache": "needs a list of transformer blocks",
    "cache_dit:threshold=0.2": "is for transformers",
}

DIT = {
    "ours:policy=interleave,compose=block": "no deep blocks",
    "cfg_cutoff:fraction=0.4": "takes no callback_on_step_end",
    "deepcache:interval=3": "needs a UNet",
    "tomesd:ratio=0.5": "needs a UNet",
}

#: What acts on guidance alone has nothing to act on in a distilled model.
DISTILLED = UNET | {
    "ours:policy=interleave": "closes the guidance gate alone",
    "ours:policy=error_controlled": "closes the guidance gate alone",
    "cfg_cutoff:fraction=0.4": "no unconditional branch",
    "adaptive_guidance": "no unconditional branch",
}

#: Home: method, as the suite writes it: a part of the reason why not. All others run.
REFUSED: dict[str, dict[str, str]] = {
    "emoji-sd": UNET,
    "sdxl": UNET,
    "pixart_sigma": DIT,
    "pixart_alpha": DIT | {"faster_cache": "halves no added_cond_kwargs"},
    "lcm": DISTILLED
    | {
        "tgate_package:gate_step=2": "takes the mean of two branches",
        "text_window:mode=all": "no text encoder",
        "text_window:mode=first,m=2": "no text encoder",
        "text_window:mode=last,m=2": "no text encoder",
        "text_window:mode=null": "no text encoder",
    },
}

#: Homes whose every method is run; the others' refusals are looked at.
RUN = ("emoji-sd", "sdxl", "pixart_sigma", "lcm")


def texts(name: str) -> list[str]:
    """The suite of a home; its texts hang on the shape and the steps alone."""
    unet = "pixart" not in name
    gate = 3 if homes.HOMES[name].setting.steps == 6 else 2
    fewer = (homes.HOMES[name].setting.steps + gate) // 2
    return [
        "ungated",
        f"fewer_steps:steps={fewer}",
        "ours:policy=interleave",
        "ours:policy=interleave,gates=guidance+cross",
        "ours:policy=error_controlled",
        "ours:policy=fixed_step,fraction=0.4,estimator=hold",
        "ours:policy=interleave,compose=block",
        "cfg_cutoff:fraction=0.4",
        "adaptive_guidance",
        f"tgate_package:gate_step={gate}",
        f"tgate:gate_step={gate}",
        "deepcache:interval=3",
        "tomesd:ratio=0.5",
        "pab",
        "faster_cache",
        "first_block_cache:threshold=0.2",
        "taylorseer",
        *([] if unet else ["taylorseer:lite=true"]),
        "mag_cache",
        "cache_dit:threshold=0.2",
        "text_window:mode=all",
        f"text_window:mode=first,m={gate}",
        f"text_window:mode=last,m={gate}",
        "text_window:mode=null",
    ]


RUNNING = [(name, text) for name in RUN for text in texts(name) if text not in REFUSED[name]]

running = pytest.mark.parametrize(("name", "text"), RUNNING)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_suite_holds_every_method_in_the_order_of_a_table(name: str) -> None:
    """Baselines, ours, other people's, the figure; each can be parsed."""
    home = homes.HOMES[name]
    found = suite(trial.pipe_of(name), home.setting)
    assert list(found) == texts(name)
    parts = [parse(text).part for text in found]
    assert parts == sorted(parts, key=["baseline", "ours", "related", "figure"].index)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_run_says_why_and_the_rest_is_not_refused(name: str) -> None:
    """The table above is all of it, before anything has been touched."""
    home, pipe = homes.HOMES[name], trial.pipe_of(name)
    said = {t: parse(t).refuses(pipe, home.setting) for t in texts(name)}
    reasons = {text: reason for text, reason in said.items() if reason is not None}
    assert set(reasons) == set(REFUSED[name])
    for text, reason in reasons.items():
        assert re.search(REFUSED[name][text], reason), (text, reason)
        assert reason.endswith(".")


@running
def test_the_pipeline_is_left_exactly_as_it_was(name: str, text: str) -> None:
    """Classes, attributes, hooks, processors, parameters; also after an error in mid-run."""
    found = trial.tried(name, text)
    assert found.left == []
    assert found.left_by_error == []
    assert torch.equal(found.after, found.bare)


@running
def test_nothing_passes_from_a_picture_to_the_next(name: str, text: str) -> None:
    """The second picture of a block is the one that a block of its own makes."""
    found = trial.tried(name, text)
    assert torch.equal(found.pictures[1], found.alone)
    assert torch.isfinite(found.alone).all()


#: Methods that change no picture: they are for comparison, or closed nothing in so few steps.
SAME = {
    "emoji-sd": {"ungated", "text_window:mode=all"},
    # Its attention stands at half the latents' size, where tomesd merges nothing by default.
    "sdxl": {"ungated", "text_window:mode=all", "tomesd:ratio=0.5"},
    "pixart_sigma": {
        "ungated",
        "text_window:mode=all",
        "adaptive_guidance",
    },
    "lcm": {"ungated"},
}


@running
def test_each_method_does_something(name: str, text: str) -> None:
    """Its picture is another one, and but for the figure it computes less; or neither."""
    found = trial.tried(name, text)
    same = text in SAME[name]
    assert torch.equal(found.pictures[0], found.bare) == same
    if same or text.startswith("text_window"):
        assert found.macs == 1
    else:
        assert found.macs < 1
