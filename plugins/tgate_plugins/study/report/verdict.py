"""Who beats fewer steps at equal cost, in one sentence a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tgate_plugins.study.report.numbers import signed, within
from tgate_plugins.study.report.values import DECISIVE, Method, Model, Spread

Verdict: TypeAlias = Literal["better", "worse", "same", "unknown"]

#: How a sentence speaks of the two pictures that fidelity is measured to.
TARGETS: Final = {
    "converged.psnr": ("closer to the converged picture", "further from it"),
    "ungated.psnr": ("closer to the ungated picture", "further from it"),
}
#: Names in a sentence; the lists below it name everybody.
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Contest:
    """All methods of one model that have a rival, by what the interval says.

    Args:
        measure: what was compared.
        better, worse, same, unknown: largest difference first, in `worse` the largest loss.
        alone: ran, and have no rival.
    """

    measure: str
    better: tuple[Method, ...] = ()
    worse: tuple[Method, ...] = ()
    same: tuple[Method, ...] = ()
    unknown: tuple[Method, ...] = ()
    alone: tuple[Method, ...] = ()

    @property
    def count(self) -> int:
        """Methods that were compared."""
        return len(self.better) + len(self.worse) + len(self.same) + len(self.unknown)


def judge(gain: Spread | None, prompts: int) -> Verdict:
    """What an interval of a difference says; one that holds zero says nothing.

    An interval over one prompt has no width, whatever the method is worth: it says nothing either,
    and no more does one of a study that has drawn one prompt so far.

    >>> judge(Spread(1.0, 0.2, 1.8), 5), judge(Spread(1.0, -0.2, 2.2), 5), judge(None, 5)
    ('better', 'same', 'unknown')
    """
    if gain is None or gain.low is None or gain.high is None or prompts < 2:
        return "unknown"
    if gain.low == gain.high != 0:
        return "unknown"
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "same"


def of(method: Method, model: Model) -> Verdict:
    """What is found of one method, by the measure that decides on its model."""
    return judge(method.gain(contest(model).measure), len(model.prompts))


def contest(model: Model) -> Contest:
    """Sort a model's competitors; against the converged picture where there is one."""
    runners = [m for m in model.methods if m.competes]
    measure = next((k for k in DECISIVE if any(m.gain(k) for m in runners)), DECISIVE[0])
    found: dict[Verdict, list[Method]] = {"better": [], "worse": [], "same": [], "unknown": []}
    for method in runners:
        if gain := method.gain(measure):
            found[judge(gain, len(model.prompts))].append(method)
    for methods in found.values():
        methods.sort(key=lambda m: -_mean(m, measure))
    return Contest(
        measure,
        better=tuple(found["better"]),
        worse=tuple(reversed(found["worse"])),
        same=tuple(found["same"]),
        unknown=tuple(found["unknown"]),
        alone=tuple(m for m in runners if m.gain(measure) is None),
    )


def sentence(model: Model) -> str:
    """The result on one model, without its name."""
    if model.why:
        return f"It was not run: {model.why}"
    found = contest(model)
    if not found.count:
        return _nothing(model)
    if len(found.unknown) == found.count:
        return (
            f"No interval could be drawn from {_plural(len(model.prompts), 'prompt')}, so nothing"
            f" can be said of {_plural(found.count, 'method')}."
        )
    closer, further = TARGETS[found.measure]
    parts = [_winners(found, closer)]
    if found.worse:
        losers = _names(found.worse, found.measure, numbers=False)
        parts.append(f"{len(found.worse)} {_verb(len(found.worse), 'end')} {further} ({losers})")
    if found.same:
        gains = [m.gain(found.measure) for m in found.same]
        shown = _plural(max(gain.n for gain in gains if gain), "picture")
        make = _verb(len(found.same), "make")
        parts.append(f"{len(found.same)} {make} no difference that {shown} can show")
    if found.unknown:
        parts.append(f"{len(found.unknown)} gave no interval")
    return "; ".join(parts) + "."


def shown_gain(method: Method, measure: str) -> str:
    """A difference in dB with its interval, as `+1.20 dB, +0.81 to +1.63`."""
    gain = method.gain(measure)
    if gain is None:
        return ""
    interval = within(gain, "signed")
    return f"{signed(gain.mean)} dB" + (f", {interval}" if interval else "")


def _winners(found: Contest, closer: str) -> str:
    n = found.count
    rest = f"{closer} than fewer steps of the same cost"
    if not found.better:
        if n == 1:
            return f"The one method compared does not end {rest}"
        return f"None of {n} methods ends {rest}"
    names = _names(found.better, found.measure, numbers=True)
    won = len(found.better)
    return f"{won} of {_plural(n, 'method')} {_verb(won, 'end')} {rest} ({names})"


def _names(methods: Sequence[Method], measure: str, *, numbers: bool) -> str:
    said = [f"{m.label}: {_decibels(m, measure)}" if numbers else m.label for m in methods[:_NAMED]]
    more = len(methods) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")


def _nothing(model: Model) -> str:
    refused = sum(m.status == "refused" for m in model.methods)
    failed = sum(m.status == "failed" for m in model.methods)
    alone = sum(m.competes for m in model.methods)
    counts = [(alone, "ran without a rival"), (refused, "refused"), (failed, "failed")]
    why = ", ".join(f"{n} {said}" for n, said in counts if n)
    return "No method could be compared with fewer steps" + (f": {why}." if why else ".")


def _decibels(method: Method, measure: str) -> str:
    gain = method.gain(measure)
    return f"{signed(gain.mean, 1)} dB" if gain else ""


def _mean(method: Method, measure: str) -> float:
    gain = method.gain(measure)
    return gain.mean if gain is not None and gain.mean is not None else 0.0


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _verb(count: int, verb: str) -> str:
    return f"{verb}s" if count == 1 else verb
