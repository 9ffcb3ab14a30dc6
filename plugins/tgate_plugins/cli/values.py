"""`key=value` on a command line, as Python values."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tgate_sampling.errors import OptionError

Value = int | float | bool | str


def parse_value(text: str) -> Value:
    """The value a person means: an int, a float, a bool, or else the text itself.

    >>> [parse_value(t) for t in ("10", "0.5", "1e-3", "true", "none", "nan")]
    [10, 0.5, 0.001, True, 'none', 'nan']
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def parse_option(text: str) -> tuple[str, Value]:
    """The two sides of `key=value`.

    Raises:
        OptionError: there is no key, or no value.

    >>> parse_option("gate_step=10")
    ('gate_step', 10)
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (equals and value and key.isidentifier()):
        raise OptionError(f"{text!r} is no option: write key=value, as in gate_step=10.")
    return key, parse_value(value)


def parse_options(texts: Iterable[str]) -> dict[str, Value]:
    """Several options as a dict.

    Raises:
        OptionError: one is malformed, or is given twice.
    """
    options: dict[str, Value] = {}
    for text in texts:
        key, value = parse_option(text)
        if key in options:
            raise OptionError(f"{key} is given twice, as {options[key]!r} and {value!r}: keep one.")
        options[key] = value
    return options


def split_spec(text: str) -> tuple[str, dict[str, Value]]:
    """Name and options of `name` or `name:key=value,key=value`.

    Raises:
        OptionError: an option is malformed or comes twice, or none follows the colon.

    >>> split_spec("deepcache:interval=3")
    ('deepcache', {'interval': 3})
    """
    name, colon, rest = text.partition(":")
    if colon and not rest.strip():
        raise OptionError(f"{text!r} ends with a colon: write {name}:key=value, or {name}.")
    return name.strip(), parse_options(rest.split(",")) if rest else {}


def parse_size(text: str) -> tuple[int, int]:
    """Width and height, of `512` or `512x768`.

    Raises:
        OptionError: it is neither.

    >>> parse_size("512"), parse_size("512x768")
    ((512, 512), (512, 768))
    """
    width, cross, height = text.lower().partition("x")
    sides = (width, height if cross else width)
    if not all(side.isdecimal() and int(side) for side in sides):
        raise OptionError(f"--size {text!r} is no size: write 512, or 512x768 (width x height).")
    return int(sides[0]), int(sides[1])
