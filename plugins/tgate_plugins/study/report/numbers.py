"""Numbers as they are printed on the page: short, with a true minus, never a bare nan."""

from __future__ import annotations

from typing import Final

from tgate_plugins.study.report.values import Spread

#: Stands where there is no number.
NOTHING: Final = "\N{EN DASH}"
_MINUS: Final = "\N{MINUS SIGN}"
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


def plain(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals.

    >>> plain(31.256), plain(0.5, 1)
    ('31.26', '0.5')
    """
    return NOTHING if value is None else _minus(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 2) -> str:
    """A difference: zero has no sign, everything else has.

    >>> signed(1.234), signed(-0.001)
    ('+1.23', '0.00')
    """
    if value is None:
        return NOTHING
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else _minus(text)


def percent(value: float | None) -> str:
    """A share.

    >>> percent(0.975)
    '97.5 %'
    """
    return NOTHING if value is None else f"{plain(100 * value, 1)} %"


def signed_percent(value: float | None) -> str:
    """A relative shift.

    >>> signed_percent(0.031)
    '+3.1 %'
    """
    return NOTHING if value is None else f"{signed(100 * value, 1)} %"


def times(value: float | None) -> str:
    """A speed-up, with the sign for it."""
    return NOTHING if value is None else f"{value:.2f}{_TIMES}"


def seconds(value: float | None) -> str:
    """A wall time.

    >>> seconds(0.5123), seconds(75.2)
    ('0.51 s', '75.2 s')
    """
    return NOTHING if value is None else f"{value:.{2 if value < 10 else 1}f} s"


def within(spread: Spread | None, show: str = "plain", digits: int = 2) -> str:
    """An interval as `low to high`; empty where there is none.

    >>> within(Spread(1.0, 0.5, 1.5)), within(Spread(1.0, 0.5, 1.5), "signed", 1), within(None)
    ('0.50 to 1.50', '+0.5 to +1.5', '')
    """
    if spread is None or spread.low is None or spread.high is None:
        return ""
    shown = {"plain": plain, "signed": signed}.get(show)
    if shown is not None:
        return f"{shown(spread.low, digits)} to {shown(spread.high, digits)}"
    both = signed_percent if show == "signed_percent" else percent
    return f"{both(spread.low).removesuffix(' %')} to {both(spread.high)}"


def _minus(text: str) -> str:
    return text.replace("-", _MINUS)
