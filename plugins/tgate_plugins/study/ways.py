"""The methods of a study by what is written of them, and the bare runs that they stand beside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from tgate_plugins.cli.bench import say
from tgate_plugins.cli.values import split_spec
from tgate_plugins.methods.spec import label, parse
from tgate_sampling.method import Applied, Method, Part, Setting

#: The run that everything is measured against.
UNGATED: Final = "ungated"
CONVERGED: Final = "converged"


@dataclass(frozen=True)
class Converged(Method):
    """The bare pipeline with so many steps that more of them would hardly change the picture.

    It is the study's own: nobody asks for it by name, and it is not timed.
    """

    steps: int
    part = "baseline"

    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        return nullcontext(Applied(self.steps, setting.guidance_scale))


def converged(steps: int) -> str:
    """The converged run, as it is written in logs."""
    return f"{CONVERGED}:steps={steps}"


def fewer(steps: int) -> str:
    """The bare pipeline with so many steps, as it is written."""
    return f"fewer_steps:steps={steps}"


def method_of(text: str) -> Method:
    """The method that is written.

    Raises:
        OptionError: there is none, or it refuses an option.
    """
    name, options = split_spec(text)
    return Converged(int(options["steps"])) if name == CONVERGED else parse(text)


def canonical(text: str) -> str:
    """What was written, checked.

    Raises:
        OptionError: there is no such method, or it refuses an option.
    """
    parse(text)
    return text.strip()


@dataclass(frozen=True)
class Way:
    """A method as one model sees it.

    Args:
        spec: as it is written, `name:key=value,...`.
        label: as tables show it.
        name: the method's own.
        part, source, adapts: see `tgate_sampling.method.Method`.
        why: it cannot run here; None where it can.
    """

    spec: str
    label: str
    name: str
    part: Part
    source: str = ""
    adapts: bool = False
    why: str | None = None

    @classmethod
    def of(cls, text: str, pipe: Any = None, setting: Setting | None = None) -> Self:
        """The method that is written, tried against a pipeline where there is one."""
        method = method_of(text)
        why = None
        if pipe is not None and setting is not None:
            try:
                why = method.refuses(pipe, setting)
            except Exception as error:  # another's method: its mistake is its row, not our end
                why = f"it could not say whether it runs ({say(error)})"
        name, _ = split_spec(text)
        return cls(text, label(text), name, method.part, method.source, method.adapts, why)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def all_of(
    asked: Sequence[str], converged_steps: int, pipe: Any, setting: Setting
) -> tuple[Way, ...]:
    """The ungated run, what was asked for, and the converged run; each once.

    Args:
        asked: as written.
        converged_steps: of the reference; 0 for none.
        pipe: to try them against.
        setting: to try them in.
    """
    last = (converged(converged_steps),) if converged_steps else ()
    ways = [Way.of(text, pipe, setting) for text in (UNGATED, *asked, *last)]
    found: dict[str, Way] = {}
    for way in ways:
        found.setdefault(way.label, way)
    return tuple(found.values())
