"""`text_window`: the prompt is heard in a part of the run only (arXiv 2404.02747).

The paper's key figure: it explains and saves nothing, since every step makes all rows. Where the
prompt is not heard, the conditional branch is given the null text, that is the unconditional
branch's own embedding, mask and pooled embedding (the negative prompt's, where there is one).
Guidance goes on as the pipeline does it, over two branches that agree, so that it has no direction:
null text after the gate, as in the paper. A run of one branch is given the empty prompt's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from tgate_plugins import pipeline_layouts
from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import backbone_of, evaluations, one_branch
from tgate_plugins.methods._runs import clocked
from tgate_sampling.errors import OptionError, nearest
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.layout import LAYOUTS
from tgate_sampling.method import Applied, Method, Setting

MODES: Final = ("all", "first", "last", "null")

#: Inputs of a backbone that come from the prompt; the pooled ones are inside `added_cond_kwargs`.
TEXT: Final = ("encoder_hidden_states", "encoder_attention_mask", "text_embeds")

#: From all rows of an input, all rows without the prompt.
Silence = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TextWindow(Method):
    """Where in the run the prompt is heard.

    Args:
        mode: `all` steps; the `first` m steps, then null text; all but those, the `last` ones; or
            `null`, in none. Null text after the gate is `first` with m at the gate.
        m: the number of steps, for `first` and `last`.
    """

    mode: str = "all"
    m: int = 0
    part = "figure"
    source = "arXiv 2404.02747"

    def __post_init__(self) -> None:
        check_count(0, m=self.m)
        if self.mode not in MODES:
            raise OptionError(f"mode={self.mode!r} is unknown. {nearest(self.mode, MODES)}")
        if self.m and self.mode in ("all", "null"):
            raise OptionError(f"m={self.m} means nothing to mode={self.mode!r}: leave it out.")

    def heard(self, step: int) -> bool:
        """Whether the prompt is heard in this step, counted from 0.

        >>> [TextWindow("first", 2).heard(i) for i in range(3)]
        [True, True, False]
        """
        return {
            "all": True,
            "first": step < self.m,
            "last": step >= self.m,
            "null": False,
        }[self.mode]

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        name = type(pipe).__name__
        if one_branch(pipe, setting) is not None:
            if getattr(pipe, "tokenizer", None) is None:
                return (
                    f"this {name} runs one branch and has no text encoder to make a null text: "
                    "load it whole."
                )
            return None
        layout = pipeline_layouts.known_layout(pipe)
        if layout not in (LAYOUTS["uncond_first"], LAYOUTS["cond_first"]):
            return f"{name} does not hand both branches to its backbone in one call."
        return None

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        silence = _silence(pipe, setting)
        steps = step_of_calls(evaluations(pipe, setting.steps))

        def before(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            if "encoder_hidden_states" not in kwargs:
                raise OptionError(
                    f"{type(pipe).__name__} passes its backbone no encoder_hidden_states by name: "
                    "text_window cannot tell its text."
                )
            step = steps[min(clock.call, len(steps) - 1)]
            return None if self.heard(step) else (args, _without_text(kwargs, silence))

        with clocked(pipe) as clock:
            handle = backbone_of(pipe).register_forward_pre_hook(before, with_kwargs=True)
            try:
                yield Applied(setting.steps, setting.guidance_scale)
            finally:
                handle.remove()


def step_of_calls(counts: Sequence[int]) -> list[int]:
    """The step of each evaluation.

    >>> step_of_calls([1, 2, 1])
    [0, 1, 1, 2]
    """
    return [step for step, count in enumerate(counts) for _ in range(count)]


def _without_text(kwargs: dict[str, Any], silence: Silence) -> dict[str, Any]:
    made = dict(kwargs)
    for name, value in kwargs.items():
        if name in TEXT and isinstance(value, torch.Tensor):
            made[name] = silence(name, value)
        elif isinstance(value, dict):
            made[name] = _without_text(value, silence)
    return made


def _silence(pipe: Any, setting: Setting) -> Silence:
    if one_branch(pipe, setting) is not None:
        empty = _encode_nothing(pipe)
        return lambda name, value: empty[name].to(value).expand_as(value)
    first = pipeline_layouts.known_layout(pipe) == LAYOUTS["uncond_first"]

    def silence(name: str, value: torch.Tensor) -> torch.Tensor:
        half = value.chunk(2)[0 if first else 1]
        return torch.cat([half, half])

    return silence


def _encode_nothing(pipe: Any) -> dict[str, torch.Tensor]:
    """The empty prompt, as the pipeline's own encoders read it."""
    with torch.no_grad():
        made = pipe.encode_prompt(
            prompt="",
            device=next(backbone_of(pipe).parameters()).device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
    # SD: embedding, negative; PixArt: embedding, mask, ...; SDXL: embedding, negative, pooled, ...
    second = {"encoder_attention_mask": made[1]} if made[1] is not None else {}
    pooled = {"text_embeds": made[2]} if len(made) > 2 and made[2] is not None else {}
    return {"encoder_hidden_states": made[0], **second, **pooled}


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("text_window", TextWindow)
