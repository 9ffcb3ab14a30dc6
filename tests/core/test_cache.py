"""What a run keeps is read only where it fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tgate_sampling.cache import Cache, Kept, Slot, narrow, signature
from tgate_sampling.guidance import Look

BOTH = ("uncond", "cond")
ROWS = torch.tensor([[1.0], [2.0], [5.0], [8.0]])  # two samples of each branch


def test_the_same_branches_need_no_narrowing() -> None:
    """What fits is handed out as it is."""
    kept = Kept(ROWS, BOTH)
    assert narrow(kept, BOTH, "cond") is kept


@pytest.mark.parametrize(
    ("branch", "merge", "expected"),
    [
        ("cond", "cond", [5.0, 8.0]),
        ("uncond", "cond", [1.0, 2.0]),
        ("cond", "both", [5.0, 8.0]),
        ("cond", "mean", [3.0, 5.0]),
        ("uncond", "mean", [3.0, 5.0]),
    ],
)
def test_narrowing_takes_the_rows_or_their_mean(
    branch: str, merge: str, expected: list[float]
) -> None:
    """cond and both take the branch that runs; mean averages all."""
    found = narrow(Kept(ROWS, BOTH), (branch,), merge)
    assert found is not None
    assert found.value.flatten().tolist() == expected
    assert found.branches == (branch,)


def test_the_mean_is_of_however_many_branches() -> None:
    """Three branches are averaged over three."""
    kept = Kept(torch.tensor([3.0, 6.0, 9.0]), ("uncond", "image", "cond"))
    found = narrow(kept, ("cond",), "mean")
    assert found is not None
    assert found.value.tolist() == [6.0]


@pytest.mark.parametrize("merge", ["cond", "mean", "both"])
@pytest.mark.parametrize(
    ("held", "wanted"),
    [(("cond",), BOTH), (("cond",), ("uncond",)), (BOTH, ("cond", "uncond")), (BOTH, ("image",))],
)
def test_rows_that_are_not_there_are_never_made_up(
    held: tuple[str, ...], wanted: tuple[str, ...], merge: str
) -> None:
    """More branches than are held, another one, another order: nothing fits."""
    assert narrow(Kept(ROWS, held), wanted, merge) is None


def test_only_both_keeps_the_other_branch_alive() -> None:
    """cond and mean give a copy, so that the other rows are freed; both gives a view."""
    for merge, shares in (("cond", False), ("mean", False), ("both", True)):
        found = narrow(Kept(ROWS, BOTH), ("cond",), merge)
        assert found is not None
        same = found.value.untyped_storage().data_ptr() == ROWS.untyped_storage().data_ptr()
        assert same is shares


def test_a_nest_of_tensors_is_narrowed_as_a_whole() -> None:
    """Blocks return tuples: each tensor in it is narrowed."""
    found = narrow(Kept((ROWS, [ROWS + 1]), BOTH), ("cond",), "cond")
    assert found is not None
    assert [t.flatten().tolist() for t in (found.value[0], found.value[1][0])] == [
        [5.0, 8.0],
        [6.0, 9.0],
    ]


@pytest.mark.parametrize(
    "other",
    [
        torch.zeros(4, 4, 8, 10),
        torch.zeros(6, 4, 8, 8),
        torch.zeros(4, 4, 8, 8, dtype=torch.float64),
        torch.zeros(4, 4, 8, 8, device="meta"),
    ],
    ids=["size", "batch", "dtype", "device"],
)
def test_a_slot_drops_everything_when_the_call_changes(other: torch.Tensor) -> None:
    """Another size, batch, dtype or device is another call."""
    slot = Slot()
    assert slot.admit(signature(torch.zeros(4, 4, 8, 8), 2)) is False
    slot.keep("site", ROWS, BOTH)
    slot.looks["uncond"].append(Look(ROWS))
    assert slot.admit(signature(torch.zeros(4, 4, 8, 8), 2)) is False
    assert slot.fit("site", BOTH, "cond") is ROWS
    assert slot.admit(signature(other, 2)) is True
    assert slot.fit("site", BOTH, "cond") is None
    assert list(slot.tensors()) == []


def test_one_branch_of_a_pair_is_the_same_call() -> None:
    """The signature counts rows a branch, so that CFG may end in the middle of a run."""
    assert signature(torch.zeros(6, 4), 2) == signature(torch.zeros(3, 4), 1)


@pytest.mark.parametrize(
    ("merge", "stays"), [("cond", ("cond",)), ("mean", ("cond",)), ("both", BOTH)]
)
def test_fit_narrows_once(merge: str, stays: Any) -> None:
    """After the first narrowing the slot holds the narrow rows, unless both are kept."""
    slot = Slot()
    slot.keep("site", ROWS, BOTH)
    first = slot.fit("site", ("cond",), merge)
    assert torch.equal(slot.fit("site", ("cond",), merge), first)
    assert slot.kept["site"].branches == stays
    assert (slot.fit("site", BOTH, merge) is ROWS) == (merge == "both")


def test_what_was_not_kept_does_not_fit() -> None:
    """A site that never ran has nothing."""
    assert Slot().fit("site", BOTH, "cond") is None


def test_bytes_count_each_storage_once() -> None:
    """Views share memory; looks count too; clear() lets go."""
    cache = Cache()
    rows = torch.zeros(4, 8)
    cache.slot(0).keep("a", rows, BOTH)
    cache.slot(0).keep("b", rows[2:], ("cond",))
    cache.slot(1).looks["uncond"].append(Look(torch.zeros(2, 8), cond=torch.zeros(2, 8)))
    assert cache.bytes == (4 * 8 + 2 * 8 + 2 * 8) * 4
    cache.clear()
    assert cache.bytes == 0
