"""MACs and bytes: counted on the meta device, from the shapes of the calls that were made.

One multiply-accumulate is one MAC (half a FLOP pair). Two counts stand side by side: the true one,
and the literature's, which leaves out attention's own products QK^T and AV because its counter
(calflops) does not see `scaled_dot_product_attention`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

#: Operators that only attention's own products use; every other matrix product is a layer.
_PRODUCTS = frozenset({"bmm", "baddbmm"})


@dataclass(frozen=True, slots=True)
class Macs:
    """Multiply-accumulates.

    Args:
        true: all of them.
        layers: without attention's own products, as the literature counts.
    """

    true: float = 0.0
    layers: float = 0.0

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.true + other.true, self.layers + other.layers)

    def __sub__(self, other: Macs) -> Macs:
        return Macs(self.true - other.true, self.layers - other.layers)

    def __mul__(self, factor: float) -> Macs:
        return Macs(self.true * factor, self.layers * factor)


ZERO = Macs()


def total(parts: Iterable[Macs]) -> Macs:
    """The sum of `parts`."""
    return functools.reduce(Macs.__add__, parts, ZERO)


@dataclass(frozen=True, slots=True)
class Footprint:
    """MACs of one row of one backbone call.

    Args:
        modules: by module name, everything inside it included; "" is the backbone.
    """

    modules: Mapping[str, Macs]

    @property
    def whole(self) -> Macs:
        return self.modules[""]

    def of(self, names: Iterable[str]) -> Macs:
        """The MACs of several modules, none inside another."""
        return total(self.modules.get(n, ZERO) for n in names)

    def attention(self, names: Iterable[str], skipped: frozenset[str]) -> Macs:
        """The MACs of sites that are not inside a skipped module."""
        return self.of(n for n in names if not _inside(n, skipped))


def _inside(name: str, modules: frozenset[str]) -> bool:
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def count(backbone: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Macs]:
    """MACs of one forward, by module name.

    Args:
        backbone: on the meta device, or small enough to run.
        args: positional arguments of its forward, on the same device.
        kwargs: keyword arguments of it.
    """
    counter = FlopCounterMode(display=False)
    # The math kernel spells attention out as batched products, which is what we want to see.
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), math, counter:
        backbone(*args, **kwargs)
    root = type(backbone).__name__
    found: dict[str, Macs] = {}
    for name, operators in counter.get_flop_counts().items():
        if name == "Global":
            found.setdefault("", _macs(operators))
        elif name == root or name.startswith(f"{root}."):
            found[name[len(root) + 1 :]] = _macs(operators)
    return found


def _macs(operators: Mapping[Any, int]) -> Macs:
    products = sum(n for op, n in operators.items() if str(op).split(".")[-1] in _PRODUCTS)
    everything = sum(operators.values())
    return Macs(everything / 2, (everything - products) / 2)


def to_meta(value: Any) -> Any:
    """`value` with every tensor replaced by its shape; nothing is copied."""
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, dict):
        return {k: to_meta(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(to_meta(v) for v in value)
    return value


def shape_key(value: Any) -> str:
    """Shapes of all tensors in a call, as text; equal keys cost the same."""
    if isinstance(value, torch.Tensor):
        return "x".join(map(str, value.shape)) or "0d"
    if isinstance(value, dict):
        return ",".join(f"{k}={shape_key(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, (list, tuple)):
        return "(" + ",".join(shape_key(v) for v in value) + ")"
    return ""


@dataclass
class CostModel:
    """Counts each distinct call shape once, when somebody reads a report.

    Args:
        blueprint: builds the backbone without weights; None where the adapter has no recipe.
    """

    blueprint: Callable[[], nn.Module] | None
    _shapes: dict[str, tuple[tuple[Any, ...], dict[str, Any], int]] = field(default_factory=dict)
    _footprints: dict[str, Footprint | None] = field(default_factory=dict)

    def remember(self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> str:
        """Note the shapes of a full call of `rows` rows; cheap, called at each backbone call."""
        key = shape_key((args, kwargs))
        if key not in self._shapes:
            self._shapes[key] = (to_meta(args), to_meta(kwargs), rows)
        return key

    def footprint(self, key: str) -> Footprint | None:
        """What one row of such a call costs, or None where it cannot be counted."""
        if key not in self._footprints:
            if self.blueprint is None:
                return None
            args, kwargs, rows = self._shapes[key]
            self._footprints[key] = self._count(args, kwargs, rows)
        return self._footprints[key]

    def _count(self, args: Any, kwargs: Any, rows: int) -> Footprint | None:
        try:
            counted = count(self._meta_backbone, args, kwargs)
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            # Some backbones look at values on their way, and without weights there are none.
            return None
        return Footprint({n: m * (1 / rows) for n, m in counted.items()})

    @functools.cached_property
    def _meta_backbone(self) -> nn.Module:
        assert self.blueprint is not None
        return self.blueprint()
