"""What all diffusers backbones share: calls by name, cuts by name, a build without weights."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final

import torch
from torch import nn

from tgate_adapters._sites import sites_of
from tgate_adapters.description import POSITIONS, Ask, Backbone
from tgate_sampling.adapter import Adapter, Call, Site
from tgate_sampling.errors import MissingExtraError
from tgate_sampling.layout import map_tensors
from tgate_sampling.skip import bare_type

#: diffusers' own caches, by the beginning of their hooks' names.
CACHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pyramid_attention_broadcast": "PyramidAttentionBroadcast",
        "faster_cache": "FasterCache",
        "fbc_": "FirstBlockCache",
        "mag_cache": "MagCache",
        "taylorseer_cache": "TaylorSeer",
        "sea_cache": "SeaCache",
    }
)


class DiffusersAdapter(Adapter):
    """Any backbone of diffusers that a `Backbone` describes.

    Attributes:
        table: the descriptions, by class name.
    """

    table: ClassVar[Mapping[str, Backbone]] = MappingProxyType({})

    def about(self, backbone: nn.Module) -> Backbone:
        """The description of this backbone's class, or of the nearest base that has one."""
        names = (made.__name__ for made in type(backbone).__mro__)
        return next(self.table[name] for name in names if name in self.table)

    def arguments(self, backbone: nn.Module) -> tuple[str, str]:
        about = self.about(backbone)
        return about.sample, about.timestep

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return sites_of(backbone, self.about(backbone))

    def refuses(self, backbone: nn.Module) -> str | None:
        return refuse_cache(backbone)

    def opaque(self, backbone: nn.Module) -> str | None:
        return self.about(backbone).opaque

    def negative(self, backbone: nn.Module) -> str:
        return self.about(backbone).negative

    def read(self, backbone: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        about = self.about(backbone)
        named = {**dict(zip(names_of(backbone), args, strict=False)), **kwargs}
        sample = named.get(about.sample)
        if about.lists and isinstance(sample, list) and sample:
            # Every row has a tensor of its own, and so may have a size of its own.
            same = all(row.shape == sample[0].shape for row in sample)
            sample = torch.stack(sample) if same else None
        if not isinstance(sample, torch.Tensor):
            raise TypeError(
                f"{type(backbone).__name__} was called without a tensor {about.sample!r}"
            )
        channels = getattr(getattr(backbone, "config", None), "out_channels", None)
        extra = isinstance(channels, int) and sample.ndim > 1 and sample.shape[1] > channels
        return Call(sample, named.get(about.timestep), channels if extra else None)

    def take(
        self,
        backbone: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: int,
        part: slice,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cut = partial(cut_argument, self.about(backbone), rows=rows, part=part)
        names = names_of(backbone)
        return (
            tuple(cut(name, value) for name, value in zip(names, args, strict=False)),
            {name: cut(name, value) for name, value in kwargs.items()},
        )

    def output(self, result: Any) -> torch.Tensor:
        rows = rows_of(result)
        return super().output(result) if rows is None else torch.stack(rows)

    def with_output(self, result: Any, output: torch.Tensor) -> Any:
        if rows_of(result) is None:
            return super().with_output(result, output)
        rows = list(output.unbind())
        if isinstance(result, tuple):
            return (rows, *result[1:])
        return rows if isinstance(result, list) else dataclasses.replace(result, sample=rows)

    def blueprint(self, backbone: Any) -> Callable[[], nn.Module] | None:
        return partial(weightless, bare_type(type(backbone)), dict(backbone.config))

    def build(self, config: Mapping[str, Any]) -> nn.Module | None:
        try:
            import diffusers
        except ImportError as error:
            raise MissingExtraError(
                "building a backbone from its configuration needs diffusers: "
                "pip install 'tgate-sampling[diffusers]'"
            ) from error
        return weightless(getattr(diffusers, config["_class_name"]), dict(config))

    def guided(self, backbone: Any) -> bool:
        return not self.about(backbone).embeds(backbone.config)

    def example_inputs(
        self,
        backbone: Any,
        *,
        rows: int,
        height: int | None = None,
        width: int | None = None,
        tokens: int = 77,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        recipe = self.about(backbone).recipe
        if recipe is None:
            return None
        like = next(p for p in backbone.parameters() if p.is_floating_point())
        made = recipe(Ask(backbone.config, like, rows, height, width, tokens))
        return None if made is None else ((), made)


def rows_of(result: Any) -> list[torch.Tensor] | None:
    """The rows of a prediction that comes as a Python list; None where it is one tensor."""
    if isinstance(result, tuple):
        return rows_of(result[0])
    found = result if isinstance(result, list) else getattr(result, "sample", None)
    return found if isinstance(found, list) else None


def cut_argument(about: Backbone, name: str, value: Any, *, rows: int, part: slice) -> Any:
    """One argument of a call with only the rows in `part`.

    Views where rows come first; nothing is copied. What holds no rows stays as it is.
    """
    if about.lists and isinstance(value, list) and len(value) == rows:
        return value[part]
    dimension, folded = about.rows_at.get(name, 0), name in about.folded
    least = 3 if name in about.whole | POSITIONS else 1

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.shape[dimension] if tensor.ndim >= max(least, dimension + 1) else 0
        times = size // rows if folded and size and size % rows == 0 else 1
        if size != rows * times:
            return tensor
        return tensor.narrow(dimension, part.start * times, (part.stop - part.start) * times)

    return map_tensors(cut, value)


def _names(backbone: Any) -> tuple[str, ...]:
    made: Any = type(backbone)
    return parameters(made)


def names_of(backbone: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of a backbone's forward, in order."""
    made: Any = type(backbone)
    return parameters(made)


@functools.cache
def parameters(made: type[Any]) -> tuple[str, ...]:
    """The same of its class."""
    return tuple(inspect.signature(bare_type(made).forward).parameters)[1:]


def weightless(made: Any, config: dict[str, Any]) -> nn.Module:
    """A backbone on the meta device."""
    with torch.device("meta"):
        module: nn.Module = made.from_config(config)
    # A parameter made by `torch.Tensor(...)` ignores the device, as in SVD's blenders.
    return nn.Module.to(module, "meta").eval()


def diffusers_cache(backbone: nn.Module) -> str | None:
    """The name of the diffusers cache that is enabled on this backbone, or None."""
    for module in backbone.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in getattr(registry, "hooks", ()):
            for start, name in CACHES.items():
                if hook.startswith(start):
                    return name
    return None


def refuse_cache(backbone: nn.Module) -> str | None:
    """The sentence for a backbone with a diffusers cache, or None."""
    name = diffusers_cache(backbone)
    if name is None:
        return None
    return (
        f"diffusers' {name} is enabled on this {type(backbone).__name__}, and counts calls and "
        "keeps rows that a gate changes: disable it first, or leave the gating out."
    )
