"""Adapters: how a decision is carried out inside one kind of backbone.

An adapter is a description first. `Adapter` does the work for any backbone called as
`backbone(sample, timestep, ...)`; a backbone overrides the one verb that differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from tgate_sampling.layout import take_rows


@dataclass(frozen=True, slots=True)
class Site:
    """One attention module.

    Args:
        name: stable, as in `named_modules()`.
        kind: "cross", "self" or "text": a part of a joint block that only the text stream runs
            through. Joint attention itself is never skipped.
        module: the module itself.
    """

    name: str
    kind: str
    module: nn.Module


@dataclass(frozen=True, slots=True)
class Call:
    """What a driver may look at in one backbone call.

    Args:
        sample: (R, ...) noisy latents of all branches.
        timestep: as the caller passed it.
        latent_channels: leading channels of `sample` that are latents, where others follow.
        context: what the caller named this call ("cond", "uncond"), where it did.
    """

    sample: torch.Tensor
    timestep: Any
    latent_channels: int | None = None
    context: str | None = None


class Adapter:
    """One kind of backbone.

    Attributes:
        name: as registered.
        sample, timestep: names of the two arguments; positions 0 and 1.
    """

    name: ClassVar[str] = ""
    sample: ClassVar[str] = "sample"
    timestep: ClassVar[str] = "timestep"

    def arguments(self, backbone: nn.Module) -> tuple[str, str]:
        """The names that this backbone's sample and timestep have as keywords."""
        return self.sample, self.timestep

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        """Every gateable attention module, in `named_modules()` order."""
        raise NotImplementedError(f"{type(self).__name__} must define sites(backbone)")

    def branches(self, backbone: nn.Module) -> int:
        """How many places there are for the block gate to cut; 0 without such a skeleton."""
        return 0

    def blocks(self, backbone: nn.Module, branch: int) -> Sequence[Site]:
        """The topmost modules that DeepCache's `branch` leaves out, as sites of kind "block".

        Asked only for a branch below `branches`.
        """
        return ()

    def refuses(self, backbone: nn.Module) -> str | None:
        """Why this very backbone cannot be gated, or None."""
        return None

    def suits(self, backbone: nn.Module) -> str | None:
        """Why an adapter that is registered for any model (`models=("*",)`) will not do, or None.

        Asked only where no other adapter knows the class.
        """
        return "it is registered for any model and does not say which ones it suits"

    def negative(self, backbone: nn.Module) -> str:
        """The branch that the reference implementation runs after its gate.

        It calls it the negative one; a decision's `rows="uncond"` means it.
        """
        return "uncond"

    def opaque(self, backbone: nn.Module) -> str | None:
        """Why the guidance gate must stay open on this backbone, or None."""
        return None

    def read(self, backbone: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """Find sample and timestep in a call's arguments.

        Raises:
            TypeError: the call has no tensor where the sample goes.
        """
        sample = args[0] if args else kwargs.get(self.sample)
        if not isinstance(sample, torch.Tensor):
            raise TypeError(
                f"{type(backbone).__name__} was called without a tensor {self.sample!r}"
            )
        timestep = args[1] if len(args) > 1 else kwargs.get(self.timestep)
        return Call(sample, timestep)

    def take(
        self,
        backbone: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: int,
        part: slice,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with every row-wise tensor cut to `part`."""
        return take_rows(args, rows, part), take_rows(kwargs, rows, part)

    def output(self, result: Any) -> torch.Tensor:
        """The predicted tensor in what the backbone returned."""
        if isinstance(result, torch.Tensor):
            return result
        if isinstance(result, (tuple, list)):
            return self.output(result[0])
        return self.output(getattr(result, _first_field(result)))

    def with_output(self, result: Any, output: torch.Tensor) -> Any:
        """`result` with its predicted tensor replaced, its type kept."""
        if isinstance(result, torch.Tensor):
            return output
        if isinstance(result, (tuple, list)):
            return type(result)([self.with_output(result[0], output), *result[1:]])
        return dataclasses.replace(result, **{_first_field(result): output})

    def blueprint(self, backbone: nn.Module) -> Callable[[], nn.Module] | None:
        """A recipe for the same backbone without weights, for counting; None if there is none."""
        return None

    def build(self, config: Mapping[str, Any]) -> nn.Module | None:
        """The backbone of a configuration, on the meta device; None if this cannot be done."""
        return None

    def guided(self, backbone: nn.Module) -> bool:
        """Whether guidance takes two branches; False where it is an input of the model."""
        return True

    def example_inputs(
        self,
        backbone: nn.Module,
        *,
        rows: int,
        height: int | None = None,
        width: int | None = None,
        tokens: int = 77,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Arguments of one call as a sampler makes it, for `explain`; None if there is no recipe.

        Args:
            backbone: without weights; tensors are made on its device, in its dtype.
            rows: rows of the batch, all branches together.
            height: of the latents; None takes the configuration's.
            width: the same.
            tokens: length of the text.

        Raises:
            OptionError: the configuration leaves the latents' size open and none is given.
        """
        return None


def _first_field(result: Any) -> str:
    """Where a model's output has its prediction: `sample`, wherever that is what it predicts."""
    return dataclasses.fields(result)[0].name
