"""What kind each attention module of a backbone is, found out by perturbing live calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tests.backbones.tiny import Keywords, Tiny

#: Processors are parts of an attention module, blocks are what holds one.
ATTENTION = re.compile(r"(Atten|Attn)(?!.*(Processor|Block))")

TIME = 500.0


def call(model: nn.Module, tiny: Tiny, rows: int, /, **changed: Any) -> Any:
    """One forward of so many rows, with some keywords changed."""
    given = tiny.inputs(rows) | tiny.timestep(rows, TIME) | changed
    with torch.no_grad():
        return model(**given, return_dict=False)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a value of lists, tuples and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The value with every tensor in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([mapped(item, change) for item in value])
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def other(value: Any) -> Any:
    """The same shapes with other contents: noise is added, an id becomes one of the first eight."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return (tensor + 1) % 8
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(99))
        return tensor + noise.to(tensor)

    return mapped(value, change)


def changed(inputs: Keywords, names: Sequence[str]) -> Keywords:
    """Other contents for the named keywords."""
    return {name: other(inputs[name]) for name in names}


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """The innermost modules whose class is called an attention."""

    def named(module: nn.Module) -> bool:
        return ATTENTION.search(type(module).__name__) is not None

    return {
        name: module
        for name, module in model.named_modules()
        if named(module) and not any(named(m) for m in module.modules() if m is not module)
    }


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def live_calls(model: nn.Module, tiny: Tiny) -> dict[nn.Module, tuple[Any, Any, Any]]:
    """What each attention module was given and gave, at its first call in a forward."""
    calls: dict[nn.Module, tuple[Any, Any, Any]] = {}

    def keep(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        calls.setdefault(module, (args, kwargs, out))

    with _hooked(list(attentions(model).values()), keep):
        call(model, tiny, tiny.rows)
    return calls


def muted_calls(
    model: nn.Module, tiny: Tiny, muted: Sequence[nn.Module], /, **new: Any
) -> dict[nn.Module, list[torch.Tensor]]:
    """The tensors each attention module is given while some of them do not let tokens meet.

    With all of them muted, nothing carries the text into the latents' tokens, nor back.
    """
    calls: dict[nn.Module, list[torch.Tensor]] = {}

    def keep(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        given = [query(module, args, kwargs), *_others(module, args, kwargs)]
        calls.setdefault(module, [value.clone() for value in given])

        def own(value: torch.Tensor) -> torch.Tensor:
            """The input of that shape: some processors add the residual themselves."""
            return next((g for g in given if g.shape == value.shape), torch.zeros_like(value))

        return mapped(out, own) if module in muted else out

    with _hooked(list(attentions(model).values()), keep):
        call(model, tiny, tiny.rows, **new)
    return calls


def query(module: nn.Module, args: Any, kwargs: Any) -> torch.Tensor:
    """The tokens that ask: what is called hidden_states, or else comes first."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    asking: torch.Tensor = given["hidden_states"] if "hidden_states" in given else args[0]
    return asking


def _others(module: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """All other floating-point tensors of a call."""
    asking = query(module, args, kwargs)
    return [v for v in tensors([args, kwargs]) if v.is_floating_point() and v is not asking]


def _one_token_changed(value: torch.Tensor) -> torch.Tensor:
    made = value.clone()
    made[(slice(None), 0) if value.ndim == 3 else (..., 0, 0)] += 1.0
    return made


def is_cross(module: nn.Module, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether other tokens' outputs stay when one asking token changes."""
    asking = query(module, args, kwargs)
    new = _one_token_changed(asking)

    def replace(value: torch.Tensor) -> torch.Tensor:
        return new if value is asking else value

    with torch.no_grad():
        after = module(*mapped(args, replace), **mapped(kwargs, replace))
    pairs = list(zip(tensors(out), tensors(after), strict=True))
    if len(pairs) != 1:
        return False
    moved = (pairs[0][0] - pairs[0][1]).abs()
    rest = moved[:, 1:] if asking.ndim == 3 else moved.flatten(2)[..., 1:]
    if rest.numel() == 0:
        raise ValueError("an attention site with one token has no kind: use larger latents.")
    return bool(rest.max() < 1e-6)


def kinds(model: nn.Module, tiny: Tiny) -> dict[str, str]:
    """Every attention module that a forward calls: cross, self, joint, text or exchange."""
    inputs = tiny.inputs(tiny.rows)
    new_sample, new_text = (changed(inputs, names) for names in (tiny.sample, tiny.text))
    live = live_calls(model, tiny)
    base, by_sample = (muted_calls(model, tiny, list(live), **n) for n in ({}, new_sample))
    mixing = [m for m in live if _tokens_moved(base[m][0], by_sample[m][0]).any()]
    # What reads the text alone may do so: a perceiver's tokens are text, too.
    base, by_sample, by_text = (
        muted_calls(model, tiny, mixing, **n) for n in ({}, new_sample, new_text)
    )

    def kind(module: nn.Module) -> str:
        if module not in mixing:
            return "text"
        sample = [_tokens_moved(*p) for p in zip(base[module], by_sample[module], strict=True)]
        text = [_tokens_moved(*p) for p in zip(base[module], by_text[module], strict=True)]
        of_text_alone = [bool((t & ~s).any()) for s, t in zip(sample, text, strict=True)]
        if not is_cross(module, *live[module]):
            return "joint" if any(of_text_alone) else "self"
        if not any(s.any() for s in sample[1:]):
            return "cross"
        # Keys made outside the module, of latents and text (Stable Cascade), or of other latents.
        return "joint" if any(of_text_alone) else "exchange"

    return {name: kind(m) for name, m in attentions(model).items() if m in live}


def _tokens_moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Which tokens of a tensor differ; a (rows, channels, H, W) one has its tokens last."""
    moved = (before - after).abs() > 1e-6
    if moved.ndim == 4:
        moved = moved.flatten(2).transpose(1, 2)
    return moved.flatten(2).any(2) if moved.ndim > 2 else moved
