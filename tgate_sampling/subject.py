"""What `explain` speaks of: a backbone without weights, and one call of it, counted."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter, Call
from tgate_sampling.backbones import ANY, adapter_for, find
from tgate_sampling.cost import CostModel
from tgate_sampling.driver import Driver
from tgate_sampling.errors import UnsupportedBackboneError, nearest

#: Where pipelines keep how many pixels make one of the latents'.
SCALES = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")


@dataclass(frozen=True)
class Subject:
    """A backbone that may or may not be there.

    Args:
        adapter: the one that knows it.
        build: makes it without weights.
        config: what `build` goes by; equal configurations cost the same.
        made: its class, or the class's name.
        dtype: of the real one's parameters.
        real: the real one, if there is one.
        driver: of the pipeline around it, if there is one.
        scale: how many of the target's pixels make one of the latents'.
    """

    adapter: Adapter
    build: Callable[[], nn.Module]
    config: object
    made: object
    dtype: torch.dtype = torch.float32
    real: nn.Module | None = None
    driver: Driver | None = None
    scale: int = 1


def subject_of(target: Any, backbone: nn.Module | None) -> Subject:
    """Find the backbone in what a user hands over.

    Args:
        target: a pipeline, a backbone, its configuration, or a model's folder.
        backbone: the module meant, where the target holds several.

    Raises:
        UnsupportedBackboneError: no adapter knows it, or it cannot be built without weights.
    """
    if isinstance(target, (str, Path)):
        target = read_config(Path(target))
    if isinstance(target, Mapping):
        return _of_config(target)
    driver, real = find(target, backbone)
    adapter = adapter_for(real)
    if reason := adapter.refuses(real):
        raise UnsupportedBackboneError(reason)
    build = adapter.blueprint(real)
    if build is None:
        raise no_recipe(adapter, "build this backbone without weights")
    config = repr(real.config) if hasattr(real, "config") else object()
    dtype = next((p.dtype for p in real.parameters()), torch.float32)
    # Pipelines take pixels; a backbone, which has no such attribute, takes latents.
    scale = next((int(s) for n in SCALES if (s := getattr(target, n, None))), 1)
    return Subject(adapter, build, config, type(real), dtype, real, driver, scale)


def _of_config(config: Mapping[str, Any]) -> Subject:
    name = str(config.get("_class_name"))
    by_model = {m: e.value for e in manager().adapters.entries() for m in e.models if m != ANY}
    if name not in by_model:
        raise UnsupportedBackboneError(
            f"no adapter knows a backbone of _class_name {name!r}. {nearest(name, by_model)}"
        )
    adapter = by_model[name]()

    def build() -> nn.Module:
        model = adapter.build(config)
        if model is None:
            raise no_recipe(adapter, "build a backbone from its configuration")
        return model

    return Subject(adapter, build, repr(sorted(config.items())), name)


def read_config(folder: Path) -> Mapping[str, Any]:
    """The configuration of the backbone in a model's folder, or in a folder right below it.

    Raises:
        UnsupportedBackboneError: there is none that an adapter knows.
    """
    known = {m for e in manager().adapters.entries() for m in e.models if m != ANY}
    for path in (folder / "config.json", *sorted(folder.glob("*/config.json"))):
        if path.is_file():
            config: Mapping[str, Any] = json.loads(path.read_text())
            if config.get("_class_name") in known:
                return config
    raise UnsupportedBackboneError(
        f"{str(folder)!r} holds no config.json of a backbone that an adapter knows "
        f"({', '.join(sorted(known))}): pass a pipeline, a backbone, its configuration, or the "
        "folder of a downloaded model."
    )


def no_recipe(adapter: Adapter, verb: str) -> UnsupportedBackboneError:
    """The error where an adapter has left a verb of prediction out."""
    return UnsupportedBackboneError(
        f"the adapter {adapter.name!r} does not know how to {verb}, so nothing can be predicted: "
        "run it gated, and read the report."
    )


@dataclass(frozen=True)
class Question:
    """One call to count; equal questions have equal answers.

    Args:
        made: the backbone's class.
        config: its configuration.
        dtype: of its parameters.
        guidance: whether two branches are asked for.
        batch: images at a time.
        height: of the latents; None is the configuration's.
        width: the same.
        tokens: length of the text.
        adapter: the one that knows the backbone.
        build: makes it without weights, and holds no real one: what is remembered would outlive it.
    """

    made: object
    config: object
    dtype: torch.dtype
    guidance: bool
    batch: int
    height: int | None
    width: int | None
    tokens: int
    adapter: Adapter = field(compare=False)
    build: Callable[[], nn.Module] = field(compare=False)


@dataclass(frozen=True)
class Counted:
    """One call of a backbone without weights.

    Args:
        model: the backbone.
        call: sample and timestep.
        layout: name of how branches lie in it.
        answers: what every module returned, by name, on the meta device.
        cost: knows the call's MACs.
        shape: the call's key in `cost`.
    """

    model: nn.Module
    call: Call
    layout: str
    answers: Mapping[str, Any]
    cost: CostModel
    shape: str


@functools.lru_cache(maxsize=4)  # seconds for a full-size model, and policies are tried in turn
def counted(question: Question) -> Counted:
    """Build the backbone, make up a call, and count it.

    Raises:
        UnsupportedBackboneError: the adapter has no recipe.
    """
    adapter, model = question.adapter, question.build()
    nn.Module.to(model, question.dtype)  # diffusers' own `to` warns of casts
    layout = "uncond_first" if question.guidance and adapter.guided(model) else "single"
    rows = question.batch * (2 if layout == "uncond_first" else 1)
    size = {"height": question.height, "width": question.width}
    inputs = adapter.example_inputs(model, rows=rows, tokens=question.tokens, **size)
    if inputs is None:
        raise no_recipe(adapter, "call this backbone without weights")
    args, kwargs = inputs
    cost = CostModel(lambda: model)
    shape = cost.remember(args, kwargs, rows)
    answers = _recorded(model, lambda: cost.footprint(shape))
    return Counted(model, adapter.read(model, args, kwargs), layout, answers, cost, shape)


def _recorded(backbone: nn.Module, forward: Callable[[], object]) -> dict[str, Any]:
    """What every module answers while `forward` calls the backbone once."""
    answers: dict[str, Any] = {}

    def listen(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda _, __, out: answers.update({name: out}))

    hooks = [listen(name, module) for name, module in backbone.named_modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return answers
