"""How branches lie in a batch, and what travels with their rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from tgate_sampling.errors import OptionError
from tgate_sampling.layout import (
    SEPARATE,
    as_layout,
    block,
    has_guidance,
    in_call,
    take_rows,
    tensors_in,
)


class Pair(NamedTuple):
    """A named tuple, as some pipelines pass."""

    first: Any
    second: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("uncond_first", ("uncond", "cond")),
        ("cond_first", ("cond", "uncond")),
        ("single", ("cond",)),
        (["uncond", "cond"], ("uncond", "cond")),
        (("cond", "image", "uncond"), ("cond", "image", "uncond")),
    ],
)
def test_a_layout_is_a_name_or_its_labels(value: Any, expected: Any) -> None:
    """Users type either; inside it is always the branch of each block of rows."""
    assert as_layout(value) == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("uncond_frist", "Did you mean 'uncond_first'"),
        ((), "each branch once"),
        (("cond", "cond"), "each branch once"),
        (("uncond", "image"), "hold 'cond'"),
    ],
)
def test_a_wrong_layout_is_one_sentence(value: Any, says: str) -> None:
    """An unknown name, no label, a branch twice, or no cond branch."""
    with pytest.raises(OptionError, match=says):
        as_layout(value)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (("uncond", "cond"), True),
        (("cond", "uncond"), True),
        (("cond",), False),
        (("uncond",), False),
        (("cond", "image", "uncond"), True),
        (("uncond", "cond", "perturbed"), False),
        (SEPARATE, True),
    ],
)
def test_a_guidance_gate_needs_branches_that_can_be_estimated(
    layout: tuple[str, ...], expected: bool
) -> None:
    """cond and beside it uncond, or InstructPix2Pix's image, in any order; nothing perturbed."""
    assert has_guidance(layout) is expected


@pytest.mark.parametrize(
    ("layout", "number", "context", "expected"),
    [
        (("uncond", "cond"), 1, "cond", ("uncond", "cond")),
        (SEPARATE, 0, None, ("cond",)),
        (SEPARATE, 1, None, ("uncond",)),
        (SEPARATE, 2, None, ("cond",)),
        (SEPARATE, 1, "pred_cond", ("cond",)),
        (SEPARATE, 0, "pred_uncond", ("uncond",)),
        (SEPARATE, 1, "uncond_stg", ("other",)),
    ],
)
def test_a_call_of_its_own_carries_one_branch(
    layout: tuple[str, ...], number: int, context: str | None, expected: tuple[str, ...]
) -> None:
    """By the caller's name for it where there is one, else cond first."""
    assert in_call(layout, number, context) == expected


@pytest.mark.parametrize("per_branch", [1, 3])
@pytest.mark.parametrize("layout", [("uncond", "cond"), ("cond", "image", "uncond")])
def test_the_blocks_of_all_branches_are_the_batch(layout: tuple[str, ...], per_branch: int) -> None:
    """Each branch has its rows, together they are all rows, in order."""
    rows = per_branch * len(layout)
    found = [i for branch in layout for i in range(rows)[block(layout, branch, rows)]]
    assert found == list(range(rows))


def test_everything_row_wise_travels_with_the_rows() -> None:
    """Tensors whose leading dimension is the batch's are cut, wherever they lie; the rest stays."""
    rows = torch.arange(4)
    other, scalar = torch.arange(3), torch.tensor(7)
    value = {
        "sample": rows,
        "added": {"text_embeds": rows + 10, "time_ids": [rows + 20, other]},
        "residuals": (rows + 30, scalar),
        "pair": Pair(rows + 40, None),
        "scale": 0.5,
        "name": "x",
    }
    cut = take_rows(value, 4, slice(2, 4))
    assert [t.tolist() for t in tensors_in(cut)] == [
        [2, 3],
        [12, 13],
        [22, 23],
        [0, 1, 2],
        [32, 33],
        7,
        [42, 43],
    ]
    assert isinstance(cut["pair"], Pair)
    assert (cut["pair"].second, cut["scale"], cut["name"]) == (None, 0.5, "x")
    assert cut["added"]["time_ids"][1] is other


def test_cutting_rows_copies_nothing() -> None:
    """Slices of the leading dimension are views."""
    rows = torch.arange(8).view(4, 2)
    cut = take_rows((rows,), 4, slice(2, 4))[0]
    assert cut.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
