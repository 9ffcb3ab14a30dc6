"""Adapters and backbones with one sin each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tests.conftest import load_helper
from tgate_sampling.adapter import Call, Site
from tgate_sampling.gating import active_gating
from tgate_sampling.testing import AdapterCase, FakeAdapter, FakeBackbone, fake_backbone
from tgate_sampling.testing.fakes import TEXT, FakeAttention, FakeBlock

Offender = load_helper("conformance/offender.py").Offender


def with_adapter(adapter: type[FakeAdapter]) -> Callable[[], AdapterCase]:
    return lambda: AdapterCase(adapter, fake_backbone)


def with_block(block: type[nn.Module]) -> Callable[[], AdapterCase]:
    """A backbone with other blocks, whose weights are what they would have been."""

    def model() -> nn.Module:
        made = fake_backbone()
        for name in ("shallow", "deep"):
            good = getattr(made, name)
            bad = block()
            bad.load_state_dict(good.state_dict())
            setattr(made, name, bad)
        return made

    return lambda: AdapterCase(FakeAdapter, model)


def one_text(rows: int) -> dict[str, torch.Tensor]:
    """Inputs in which branches cannot be told apart."""
    text = torch.ones(rows, 7, TEXT)
    return {"sample": torch.ones(rows, 4, 4, 4), "encoder_hidden_states": text}


class NamesByAddress(FakeAdapter):
    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [Site(f"{s.name}@{id(s.module)}", s.kind, s.module) for s in super().sites(backbone)]


class ListsTwice(FakeAdapter):
    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [*super().sites(backbone), *super().sites(backbone)]


class InventsAKind(FakeAdapter):
    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [Site(s.name, "crossed", s.module) for s in super().sites(backbone)]


class ListsOthers(FakeAdapter):
    """Lists modules that only look like the backbone's."""

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [Site(s.name, s.kind, FakeAttention(TEXT)) for s in super().sites(backbone)]


class Prepares(FakeAdapter):
    """Sets the model up for itself when asked for sites."""

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        for site in super().sites(backbone):
            site.module.__dict__["processor"] = self.output
        return super().sites(backbone)


class NeverRefuses(FakeAdapter):
    """Insists on its own answer, whoever asks."""

    def __setattr__(self, name: str, value: Any) -> None: ...


class ClampsInPlace(FakeAdapter):
    def output(self, result: Any) -> torch.Tensor:
        return super().output(result).clamp_(-0.1, 0.1)


class ReadsNamesOnly(FakeAdapter):
    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Call:
        return Call(kwargs["sample"], kwargs["timestep"])


class CallsForward(FakeBlock):
    """Calls a site past its `__call__`, and so past the gate."""

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x)
        return x + self.attn2.forward(x, text)


class WritesIntoOutputs(FakeBlock):
    """Saves an allocation, and spoils what is kept."""

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x)
        out = self.attn2(x, text)
        out += x
        return out


class FlipsRows(FakeAttention):
    """Answers in another order of rows than it was asked in."""

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x, context).flip(0)


class FlippedRows(FakeBlock):
    """Reads `FlipsRows` the right way round, so that nothing shows while all rows run."""

    def __init__(self) -> None:
        super().__init__()
        self.attn2 = FlipsRows(TEXT)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x)
        return x + self.attn2(x, text).flip(0)


class AnswersInPairs(FakeAttention):
    """Returns its output and a remark."""

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> Any:
        return super().forward(x, context), None


class ReadsPairs(FakeBlock):
    def __init__(self) -> None:
        super().__init__()
        self.attn2 = AnswersInPairs(TEXT)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x)
        return x + self.attn2(x, text)[0]


class HandsOutZeros(FakeAdapter):
    """Has sites answer with zeros in its first call, where there is nothing to reuse."""

    _used = False

    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Call:
        for site in self.sites(backbone):
            if not self._used:
                site.module.__dict__["forward"] = lambda x, context=None: torch.zeros_like(x)
            else:
                site.module.__dict__.pop("forward", None)
        self._used = True
        return super().read(backbone, args, kwargs)


class TakesOtherRows(FakeAdapter):
    def take(self, *call: Any) -> Any:
        *call, rows, part = call
        return super().take(*call, rows, slice(rows - part.stop, rows - part.start))


class ForgetsTheText(FakeAdapter):
    """Cuts latents and leaves the text whole."""

    def take(self, *call: Any) -> Any:
        args, kwargs = super().take(*call)
        whole = next(a for a in call if isinstance(a, dict))
        return args, {**kwargs, "encoder_hidden_states": whole["encoder_hidden_states"]}


class ReturnsFloat32(FakeAdapter):
    def with_output(self, result: Any, output: torch.Tensor) -> Any:
        return super().with_output(result, output.float())


class ReturnsATensor(FakeAdapter):
    def with_output(self, result: Any, output: torch.Tensor) -> Any:
        return output


class RemembersItsFirstCall(FakeAdapter):
    def __init__(self) -> None:
        self._first: Call | None = None

    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Call:
        self._first = self._first or super().read(backbone, args, kwargs)
        return self._first


class LeavesAMark(FakeAdapter):
    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Call:
        backbone.__dict__["last_call"] = call = super().read(backbone, args, kwargs)
        return call


class CleansUpLater(FakeAdapter):
    """Marks the model for the length of a call, and forgets that a call may fail."""

    _marked: nn.Module | None = None

    def read(self, backbone: nn.Module, args: Any, kwargs: Any) -> Call:
        self._marked = backbone
        backbone.__dict__["in_a_call"] = True
        return super().read(backbone, args, kwargs)

    def output(self, result: Any) -> torch.Tensor:
        if self._marked is not None:
            self._marked.__dict__.pop("in_a_call", None)
        return super().output(result)


class TakesOver(FakeAdapter):
    """Throws the first gating out to make room for its own."""

    def refuses(self, backbone: nn.Module) -> str | None:
        first = active_gating(backbone)
        if first is not None:
            first.detach()
        return None


class PastItsHooks(FakeBackbone):
    """A backbone that is called past its own hooks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


def same_model() -> Callable[[], AdapterCase]:
    model = fake_backbone()
    return lambda: AdapterCase(FakeAdapter, lambda: model)


ADAPTERS = {
    "one text": Offender(
        "check_example_is_telling",
        lambda: AdapterCase(FakeAdapter, fake_backbone, one_text),
        "both branches' rows come out alike",
    ),
    "one model": Offender(
        "check_example_is_telling", same_model(), "returned the same model twice"
    ),
    "names by address": Offender(
        "check_site_names_are_stable", with_adapter(NamesByAddress), "list different sites"
    ),
    "lists twice": Offender(
        "check_site_names_are_stable", with_adapter(ListsTwice), "is listed twice"
    ),
    "invents a kind": Offender(
        "check_site_names_are_stable", with_adapter(InventsAKind), "has kind 'crossed'"
    ),
    "lists others": Offender(
        "check_site_names_are_stable", with_adapter(ListsOthers), "does not lead to its module"
    ),
    "prepares": Offender(
        "check_asking_touches_nothing",
        with_adapter(Prepares),
        "the attribute 'processor' of shallow.attn1 is new",
    ),
    "never refuses": Offender(
        "check_asking_touches_nothing",
        with_adapter(NeverRefuses),
        "a model that the adapter refuses was not refused",
    ),
    "clamps in place": Offender(
        "check_open_is_free", with_adapter(ClampsInPlace), "differs from the bare model's"
    ),
    "reads names only": Offender(
        "check_positional_calls_are_gated_alike", with_adapter(ReadsNamesOnly), "KeyError: 'sample'"
    ),
    "calls forward": Offender(
        "check_reuse_saves_calls", with_block(CallsForward), "and not by its forward"
    ),
    "writes into outputs": Offender(
        "check_reuse_returns_what_was_stored",
        with_block(WritesIntoOutputs),
        "must not write into it",
    ),
    "hands out zeros": Offender(
        "check_nothing_is_reused_before_it_is_stored",
        with_adapter(HandsOutZeros),
        "something was reused that this run has not stored",
    ),
    "takes other rows": Offender(
        "check_row_wise_inputs_travel", with_adapter(TakesOtherRows), "take() must cut"
    ),
    "forgets the text": Offender(
        "check_row_wise_inputs_travel", with_adapter(ForgetsTheText), "RuntimeError"
    ),
    "flipped rows": Offender(
        "check_branches_stay_apart", with_block(FlippedRows), "did not reuse their own stored rows"
    ),
    "returns float32": Offender(
        "check_shape_dtype_and_device_stay",
        with_adapter(ReturnsFloat32),
        "has dtype torch.float32, and the bare model's has torch.float64",
    ),
    "returns a tensor": Offender(
        "check_output_type_stays",
        with_adapter(ReturnsATensor),
        "returned a tensor, and the bare one FakeOutput",
    ),
    "remembers its first call": Offender(
        "check_changed_rows_compute_in_full",
        with_adapter(RemembersItsFirstCall),
        "this call's own sample",
    ),
    "answers in pairs": Offender(
        "check_signals_are_measured", with_block(ReadsPairs), "does not return one tensor"
    ),
    "leaves a mark": Offender(
        "check_detaching_restores_the_model",
        with_adapter(LeavesAMark),
        "the attribute 'last_call' of the model is new",
    ),
    "cleans up later": Offender(
        "check_an_error_leaves_no_trace",
        with_adapter(CleansUpLater),
        "the attribute 'in_a_call' of the model is new",
    ),
    "takes over": Offender(
        "check_a_second_gating_is_refused",
        with_adapter(TakesOver),
        "a second gating was not refused",
    ),
    "past its hooks": Offender(
        "check_a_concurrent_call_is_refused",
        lambda: AdapterCase(FakeAdapter, lambda: seeded(PastItsHooks)),
        "was not refused",
    ),
}


def seeded(made: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made()
