"""How the branches of classifier-free guidance lie in one backbone call's batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import torch

from tgate_sampling.errors import OptionError, nearest

#: The branch of each equal block of rows, in order.
Layout: TypeAlias = tuple[str, ...]

SINGLE: Final[Layout] = ("cond",)

#: One backbone call for each branch, cond first; not a branch itself.
SEPARATE: Final[Layout] = ("separate",)

LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "uncond_first": ("uncond", "cond"),
        "cond_first": ("cond", "uncond"),
        "single": SINGLE,
        "separate": SEPARATE,
    }
)

#: Branches that an estimator can stand in for: `image` is InstructPix2Pix's, with the picture and
#: without the text. A perturbed branch (PAG) is none: what it perturbs depends on its rows' place.
ESTIMABLE: Final = frozenset({"uncond", "image"})

#: What diffusers calls the branch of one call, by `cache_context(name)`.
CONTEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {"cond": "cond", "pred_cond": "cond", "uncond": "uncond", "pred_uncond": "uncond"}
)


def as_layout(value: str | Sequence[str] | None) -> Layout | None:
    """Read a user's `layout=`: a name of `LAYOUTS`, or the branch of each block of rows.

    >>> as_layout("uncond_first")
    ('uncond', 'cond')

    Raises:
        OptionError: the name is unknown, or the labels hold a branch twice.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value not in LAYOUTS:
            raise OptionError(f"layout={value!r} is unknown. {nearest(value, LAYOUTS)}")
        return LAYOUTS[value]
    labels = tuple(value)
    if labels == SEPARATE:
        return SEPARATE
    if not labels or len(set(labels)) != len(labels) or "cond" not in labels:
        raise OptionError(
            f"layout={labels!r} must name each branch once and hold 'cond': "
            "type layout='uncond_first' or, say, layout=('cond', 'uncond')."
        )
    return labels


def has_guidance(layout: Layout) -> bool:
    """Whether a guidance gate can close here: beside cond there are branches, all estimable.

    >>> has_guidance(("uncond", "cond")), has_guidance(("cond",)), has_guidance(SEPARATE)
    (True, False, True)
    """
    others = set(layout) - {"cond"}
    return layout == SEPARATE or ("cond" in layout and bool(others) and others <= ESTIMABLE)


def in_call(layout: Layout, number: int, context: str | None = None) -> Layout:
    """The branches in the rows of one call.

    Args:
        layout: of the run's calls.
        number: of the call within its evaluation.
        context: what the caller named the call, where it did.

    >>> in_call(SEPARATE, 1), in_call(SEPARATE, 0, "uncond"), in_call(("uncond", "cond"), 0)
    (('uncond',), ('uncond',), ('uncond', 'cond'))
    """
    if layout != SEPARATE:
        return layout
    if context is not None:
        return (CONTEXTS.get(context, "other"),)
    return ("cond",) if number % 2 == 0 else ("uncond",)


def block(layout: Layout, branch: str, rows: int) -> slice:
    """The rows of one branch in a batch of `rows`.

    >>> block(("uncond", "cond"), "cond", 6)
    slice(3, 6, None)
    """
    size = rows // len(layout)
    start = layout.index(branch) * size
    return slice(start, start + size)


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """`value` with `function` applied to every tensor in it; dicts, lists and tuples are walked."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)((k, map_tensors(function, v)) for k, v in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(function, v) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(function, v) for v in value)
    return value


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor in a nested value, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in tensors_in(item)]


def take_rows(value: Any, rows: int, part: slice) -> Any:
    """`value` with every tensor whose leading dimension is the batch's cut to `part`.

    Anything else, and any tensor with another leading dimension, stays as it is. Slices of
    dimension 0 are views: nothing is copied.
    """
    return map_tensors(lambda t: t[part] if t.ndim and t.shape[0] == rows else t, value)


def row_wise(value: Any, rows: int) -> int:
    """How many tensors in a nested value hold `rows` rows."""
    return sum(t.ndim > 0 and t.shape[0] == rows for t in tensors_in(value))
