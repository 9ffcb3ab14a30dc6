"""What a check found: results are values, and a failure is a sentence with its cure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from tgate_sampling.errors import OptionError, TGateError, nearest

Case = TypeVar("Case")

#: What becomes of a check that fails: the first one raises, or all are collected.
OnFail: TypeAlias = Literal["raise", "collect"]


class ConformanceError(TGateError, AssertionError):
    """A check found something wrong; the sentence says what, and what to do about it."""


class DoesNotApplyError(Exception):
    """A check has nothing to look at here; the message says why."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Args:
        name: of the check, as in `skip=` and `expected_failures=`.
        passed: nothing is wrong; true also where the check does not apply.
        message: what is wrong and what to do about it, or why the check does not apply.
        applies: whether there was anything to look at.
    """

    name: str
    passed: bool
    message: str = ""
    applies: bool = True

    def __str__(self) -> str:
        mark = "FAILED" if not self.passed else "passed" if self.applies else "left out"
        return f"{mark:<9}{self.name}" + (f": {self.message}" if self.message else "")


def claim(holds: bool, sentence: str) -> None:
    """Go on if something holds.

    Raises:
        ConformanceError: it does not; `sentence` says what is wrong and what to do.
    """
    if not holds:
        raise ConformanceError(sentence)


def name_of(check: Callable[..., object]) -> str:
    """The name a check goes by: its function's."""
    return str(getattr(check, "__name__", check))


def sentence_of(error: Exception) -> str:
    """What a check's error says; an error that no check meant to raise is named."""
    if isinstance(error, ConformanceError):
        return str(error)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"it raised {type(error).__name__}: {error}{notes}"


def run_checks(
    checks: Sequence[Callable[[Case], None]],
    case: Case,
    *,
    on_fail: OnFail = "raise",
    skip: Collection[str] = (),
) -> list[CheckResult]:
    """Every check on one case, in order.

    Args:
        checks: functions that raise where something is wrong.
        case: what they look at.
        on_fail: "raise" stops at the first failure, "collect" returns them all.
        skip: names of checks to leave out.

    Raises:
        ConformanceError: a check failed, and `on_fail` is "raise".
        OptionError: `on_fail` or a name in `skip` is unknown.
    """
    if on_fail not in get_args(OnFail):
        raise OptionError(f"on_fail={on_fail!r} is unknown. {nearest(on_fail, get_args(OnFail))}")
    check_names(skip, checks, "skip")
    results = []
    for check in checks:
        if name_of(check) in skip:
            continue
        try:
            check(case)
        except DoesNotApplyError as reason:
            results.append(CheckResult(name_of(check), True, str(reason), applies=False))
        except Exception as error:
            if on_fail == "raise":
                raise ConformanceError(f"{name_of(check)}: {sentence_of(error)}") from error
            results.append(CheckResult(name_of(check), False, sentence_of(error)))
        else:
            results.append(CheckResult(name_of(check), True))
    return results


def check_names(
    names: Collection[str], checks: Sequence[Callable[[Any], None]], option: str
) -> None:
    """Refuse names of checks that do not exist, so that a misspelt one does not skip nothing.

    Raises:
        OptionError: with the nearest name.
    """
    known = [name_of(check) for check in checks]
    for name in (names,) if isinstance(names, str) else names:
        if name not in known:
            raise OptionError(f"{option}={name!r} is no check. {nearest(name, known)}")
