"""A backbone described: what differs between diffusers' models, as data.

Whoever adds a model adds a `Backbone` to one of the tables (`diffusers_unet`, `diffusers_dit`,
`diffusers_mmdit`); code is needed only for a call that cannot be said in these words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from tgate_sampling.errors import OptionError

#: The last part of the names that cross- and self-attention modules have nearly everywhere.
CROSS: tuple[str, ...] = ("attn2", "cross_attn", "cross_attention")
SELF: tuple[str, ...] = ("attn1", "self_attn", "self_attention")


#: Positions and rotary tables, the same for every row in nearly all pipelines.
POSITIONS = frozenset(
    {
        "image_rotary_emb",
        "img_ids",
        "position_ids",
        "rotary_embedding",
        "text_rope_pos",
        "txt_ids",
        "visual_rope_pos",
    }
)


@dataclass(frozen=True)
class Ask:
    """A call to be made up.

    Args:
        config: the backbone's configuration.
        like: one of its parameters; tensors are made on its device, in its dtype.
        rows: rows of the batch, all branches together.
        height: of the latents; None takes the configuration's, or the recipe's.
        width: the same.
        tokens: length of the text.
    """

    config: Any
    like: torch.Tensor
    rows: int
    height: int | None
    width: int | None
    tokens: int

    def new(self, *shape: int) -> torch.Tensor:
        """A tensor of the backbone's dtype; what is in it does not matter."""
        return self.like.new_empty(shape)

    def steps(self, rows: int | None = None) -> torch.Tensor:
        """A timestep for each row, or one for all where `rows` is 0."""
        count = self.rows if rows is None else rows
        return self.like.new_empty((count,) if count else (), dtype=torch.int64)

    def mask(self, *shape: int) -> torch.Tensor:
        """A mask that hides nothing."""
        return self.like.new_ones(shape, dtype=torch.bool)

    def size(self, own: Any = None) -> tuple[int, int]:
        """Height and width of the latents: what was asked for, or else `own`.

        Raises:
            OptionError: neither is known.
        """
        own = getattr(self.config, "sample_size", None) if own is None else own
        high, wide = own if isinstance(own, (tuple, list)) else (own, own)
        high, wide = self.height or high, self.width or wide
        if high is None or wide is None:
            raise OptionError(
                "this backbone's configuration has no sample_size: pass height and width."
            )
        return int(high), int(wide)


#: `recipe(ask)` -> the keyword arguments of one call, the timestep included; None for a
#: configuration that takes more than the recipe knows.
Recipe: TypeAlias = Callable[[Ask], dict[str, Any] | None]


def _never(config: Any) -> bool:
    return False


def takes_guidance(config: Any) -> bool:
    """Whether a transformer has the guidance scale as an input, as Flux and Sana-Sprint."""
    return bool(getattr(config, "guidance_embeds", False))


@dataclass(frozen=True)
class Backbone:
    """One model class of diffusers.

    Args:
        model: the class's name.
        recipe: makes up a call, for counting; None where nobody has written it down.
        sample: name of the argument with the latents.
        timestep: name of the argument with the time.
        cross: ends of the names of cross-attention modules, as patterns.
        selfs: ends of the names of self-attention modules; empty where text and picture share one
            attention, which is never skipped as a whole.
        believes: whether a module's own `is_cross_attention` counts for more than its name.
        text: ends of the names of modules that only the text stream of a joint block runs through;
            what the `text` gate reuses.
        folded: arguments that hold several rows of theirs for each row of the batch (AnimateDiff
            repeats its text for every frame).
        rows_at: the dimension of rows in arguments where it is not the first.
        whole: arguments that hold no rows beside `POSITIONS`. A rotary table may be as long as the
            batch by chance; only one with a dimension of its own for rows, of three, is cut.
        lists: the batch is a Python list, with one entry a row.
        embeds: whether guidance is an input of the model of this configuration, so that there is no
            second branch.
        negative: the branch `Adapter.negative` names.
        opaque: why guidance stays open, or None.
        calls: how pipelines lay out the branches, for the documentation.
    """

    model: str
    recipe: Recipe | None = None
    sample: str = "hidden_states"
    timestep: str = "timestep"
    cross: tuple[str, ...] = CROSS
    selfs: tuple[str, ...] = SELF
    believes: bool = True
    text: tuple[str, ...] = ()
    folded: frozenset[str] = frozenset()
    rows_at: Mapping[str, int] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    lists: bool = False
    embeds: Callable[[Any], bool] = _never
    negative: str = "uncond"
    opaque: str | None = None
    calls: str = "batched"
