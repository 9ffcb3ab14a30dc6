"""What the tables of tiny backbones are made of: seeded weights, seeded inputs, timesteps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch

#: Mochi turns autocast off by asking for float32; AnyFlowFAR attends by flex_attention, uncompiled.
WARNINGS = (
    "ignore:In CPU autocast:UserWarning",
    "ignore:flex_attention called without:UserWarning",
)

Keywords = dict[str, Any]
Timestep = Callable[[int, float], Keywords]


@dataclass(frozen=True)
class Tiny:
    """One backbone of diffusers, small enough for a test, and how a pipeline calls it.

    Args:
        name: the class's name in diffusers, with a suffix as in "UNet2DConditionModel:sdxl" for
            a second use of the same class.
        build: a new model: seeded, random in every weight, float32, in evaluation mode.
        inputs: all keyword arguments of a forward with so many rows, but for the timestep. The
            latents of all rows are equal, their texts are not; a row's values do not depend on
            how many rows there are.
        timestep: the timestep's keyword for so many rows, at a time of 0 to 1000 on the
            scheduler's scale.
        rows: what a batched call with guidance passes.
        cross: sites whose keys and values come from conditions alone: the prompt, a face.
        selfs: sites which read nothing but the latents (and learned or global tokens among them).
        joints: sites in which latents and text share one softmax.
        texts: sites which read conditions alone: token refiners, poolers, perceivers.
        exchanges: cross sites between two latents (video and audio): what they read moves on.
        sample: the keywords that hold latents.
        text: the keywords that hold the prompt.
        note: what is peculiar about the call.
    """

    name: str
    build: Callable[[], Any]
    inputs: Callable[[int], Keywords]
    timestep: Timestep
    rows: int = 2
    cross: int = 0
    selfs: int = 0
    joints: int = 0
    texts: int = 0
    exchanges: int = 0
    sample: tuple[str, ...] = ("hidden_states",)
    text: tuple[str, ...] = ("encoder_hidden_states",)
    note: str = ""


def tiny(
    name: str,
    config: Keywords,
    inputs: Callable[[int], Keywords],
    timestep: Timestep,
    **facts: Any,
) -> Tiny:
    """A row of the table: class name, configuration, inputs, timestep, and what is known of it."""
    return Tiny(
        name, partial(random_model, name.partition(":")[0], config), inputs, timestep, **facts
    )


def random_model(name: str, config: Keywords, *, seed: int = 0) -> Any:
    """A model of diffusers in which every weight is random.

    As they are made, most transformers put out zeros: their last layers and the gates of their
    blocks start at zero. So all weights are drawn anew, at the scale that keeps activations at one.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Some of diffusers' own constructors use what diffusers has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        model = getattr(diffusers, name)(**config).eval().float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(_drawn(parameter))
    return model


def _drawn(parameter: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(parameter.shape)
    if parameter.ndim >= 2:
        return noise / max(1, parameter[0].numel()) ** 0.5
    # A gain starts at one and stays near it; biases and other vectors stay near zero.
    return noise.mul(0.1) + (parameter == 1).all()


def same(rows: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random values, equal in all rows: the latents of a call with guidance."""
    drawn = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    return drawn.repeat(rows, *(1 for _ in shape))


def each(rows: int, *shape: int, seed: int = 1) -> torch.Tensor:
    """Random values, other ones in every row: the texts of a call with guidance."""
    return torch.cat([same(1, *shape, seed=1000 * seed + row) for row in range(rows)])


def lengths(rows: int, tokens: int) -> list[int]:
    """How many of its tokens a row uses: the negative prompt (row 0) is the shorter one."""
    return [tokens - 2 + row % 3 for row in range(rows)]


def mask(rows: int, tokens: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Which text tokens count, row by row: as many as `lengths` says, from the left."""
    used = torch.tensor(lengths(rows, tokens))[:, None]
    return (torch.arange(tokens)[None] < used).to(dtype)


def grid(height: int, width: int, axes: int = 3) -> torch.Tensor:
    """Position ids of image tokens, (tokens, axes): line in the second, column in the third."""
    ids = torch.zeros(height, width, axes)
    ids[..., 1] += torch.arange(height)[:, None]
    ids[..., 2] += torch.arange(width)[None]
    return ids.reshape(height * width, axes)


def scalar(keyword: str = "timestep") -> Timestep:
    """One timestep without dimensions for all rows: a view of `scheduler.timesteps`."""

    def made(rows: int, t: float) -> Keywords:
        return {keyword: torch.tensor(t)}

    return made


def per_row(
    keyword: str = "timestep", scale: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Timestep:
    """A timestep a row, as `t.expand(rows)` gives them, on the model's own scale."""

    def made(rows: int, t: float) -> Keywords:
        values = torch.tensor(t).expand(rows)
        return {keyword: values if scale is None else scale(values)}

    return made


def thousandth(t: torch.Tensor) -> torch.Tensor:
    """0 to 1: what models of the flow-matching kind are trained on."""
    return t / 1000


def reversed_thousandth(t: torch.Tensor) -> torch.Tensor:
    """1 to 0: models whose time runs from noise to image."""
    return (1000 - t) / 1000


def table(rows: Sequence[Tiny]) -> dict[str, Tiny]:
    """Rows by name; a name twice is an error."""
    made = {row.name: row for row in rows}
    if len(made) != len(rows):
        raise ValueError("two rows of a table of tiny backbones have one name.")
    return made
