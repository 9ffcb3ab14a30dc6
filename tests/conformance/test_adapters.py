"""Adapters keep the promises asked of everybody's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tgate_adapters.diffusers_unet import UNetAdapter
from tgate_sampling._manager import manager
from tgate_sampling.testing import (
    AdapterCase,
    FakeAdapter,
    FakeBackbone,
    check_adapter,
    fake_backbone,
    parametrize_adapter_checks,
    tiny_unet,
    unet_inputs,
)
from tgate_sampling.testing.fakes import CHANNELS, TEXT

CASES = {
    "unet": AdapterCase(UNetAdapter, tiny_unet),
    "unet with inputs of ours": AdapterCase(
        UNetAdapter(), tiny_unet, lambda rows: unet_inputs(rows=rows)
    ),
    "fake": AdapterCase(FakeAdapter, fake_backbone),
}


@parametrize_adapter_checks(CASES)
def test_adapters(case: Any, check: Any) -> None:
    """One item for each adapter and check."""
    check(case)


class Lists(FakeBackbone):
    """Takes its batch as python lists, frames and all, and returns a list."""

    def forward(self, sample: Any, timestep: Any, texts: Any) -> Any:  # type: ignore[override]
        latents = torch.stack(list(sample))
        (out,) = super().forward(latents, timestep, torch.stack(list(texts)), return_dict=False)
        return list(out)


class ListsAdapter(FakeAdapter):
    name = "lists"

    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Any:
        args = [torch.stack(list(args[0])), *args[1:]] if args else args
        named = {"sample": torch.stack(list(kwargs["sample"]))} if not args else {}
        return super().read(backbone, args, {**kwargs, **named})

    def take(self, *call: Any) -> Any:
        *_, args, kwargs, rows, part = call

        def cut(value: Any) -> Any:
            return value[part] if isinstance(value, list) and len(value) == rows else value

        return tuple(cut(a) for a in args), {k: cut(v) for k, v in kwargs.items()}

    def output(self, result: Any) -> torch.Tensor:
        return torch.stack(list(result)) if isinstance(result, list) else super().output(result)

    def with_output(self, result: Any, output: torch.Tensor) -> Any:
        return list(output)


def list_inputs(rows: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(CHANNELS, 4, 4, generator=generator)
    return {
        "sample": [latents.clone() for _ in range(rows)],
        "texts": list(torch.randn(rows, 7, TEXT, generator=generator)),
    }


def lists() -> nn.Module:
    made = Lists()
    made.load_state_dict(fake_backbone().state_dict())
    return made


def test_batches_may_be_lists() -> None:
    """Where a backbone takes one tensor a row, the kit cuts and copies lists."""
    results = check_adapter(ListsAdapter, lists, inputs=list_inputs, on_fail="collect")
    assert [str(r) for r in results if not r.passed] == []


class Distilled(FakeAdapter):
    """A backbone with guidance as an input."""

    def guided(self, backbone: nn.Module) -> bool:
        return False


class Bare(FakeAdapter):
    """A backbone without a site to gate."""

    def sites(self, backbone: nn.Module) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("adapter", "left_out"),
    [
        (Distilled, ["check_row_wise_inputs_travel", "check_branches_stay_apart"]),
        (
            Bare,
            [
                "check_reuse_saves_calls",
                "check_reuse_returns_what_was_stored",
                "check_branches_stay_apart",
                "check_signals_are_measured",
            ],
        ),
    ],
)
def test_what_a_backbone_does_not_have_is_left_out(
    adapter: type[FakeAdapter], left_out: list[str]
) -> None:
    """Without a second branch, or without sites, there is nothing to see; the reason is said."""
    results = check_adapter(adapter, fake_backbone, on_fail="collect")
    assert [r.name for r in results if not r.passed] == []
    assert [r.name for r in results if not r.applies] == left_out
    assert all(r.message for r in results if not r.applies)


def test_an_adapter_without_a_recipe_is_told_to_pass_inputs() -> None:
    """`inputs=` is what it takes."""

    class NoRecipe(FakeAdapter):
        def example_inputs(self, *_: Any, **__: Any) -> None:
            return None

    first, *_ = check_adapter(NoRecipe, fake_backbone, on_fail="collect")
    assert not first.passed
    assert "pass inputs=" in first.message


def test_the_kit_leaves_no_adapter_behind() -> None:
    """What a check registers for its model is gone after it, also after a failure."""
    before = manager().adapters.entries()
    check_adapter(FakeAdapter, fake_backbone)
    check_adapter(FakeAdapter, lambda: nn.Linear(1, 1), on_fail="collect")
    assert manager().adapters.entries() == before
