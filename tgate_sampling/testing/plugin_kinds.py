"""A check of plugins: what they register is what it is registered as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tgate_sampling._manager import Manager
from tgate_sampling.adapter import Adapter
from tgate_sampling.driver import Driver
from tgate_sampling.errors import TGateError
from tgate_sampling.layer import Layer
from tgate_sampling.policy import Policy
from tgate_sampling.testing.plugin_case import PluginCase, registered_in
from tgate_sampling.testing.results import ConformanceError, claim


def check_registered_things_are_of_their_kind(case: PluginCase) -> None:
    """Policies build or say what they need; adapters, drivers and layers are such classes."""
    alone = Manager()
    with case.visiting(alone):
        for kind, entry in registered_in(alone):
            if kind in _KINDS:  # a registry that came later has no check yet
                _KINDS[kind](f"the {kind} {entry.name!r}", entry)


def _policy(what: str, entry: Any) -> None:
    built = _called(what, entry.value)
    claim(
        built is None or isinstance(built, Policy),
        f"{what} builds {type(built).__name__}: register a factory whose policies derive from "
        "tgate_sampling.Policy",
    )


def _sampler(what: str, entry: Any) -> None:
    loaded = _called(what, entry.value)
    claim(
        loaded is None or callable(loaded),
        f"{what} loads {type(loaded).__name__}: register a function that imports the sampler and "
        "returns it",
    )


def _called(what: str, factory: Any) -> Any:
    """What a factory gives without arguments; None if it says, in a sentence, what it needs."""
    claim(callable(factory), f"{what} is {factory!r}, which cannot be called: register a factory")
    try:
        return factory()
    except TGateError:
        return None
    except Exception as error:
        raise ConformanceError(
            f"{what} cannot be built with its defaults ({type(error).__name__}: {error}): give "
            "every option one, or raise an OptionError that says what to set"
        ) from error


def _class_of(base: type) -> Callable[[str, Any], None]:
    """A check for classes of one base, with nothing left to define."""

    def check(what: str, entry: Any) -> None:
        value = entry.value
        claim(
            isinstance(value, type) and issubclass(value, base) and value is not base,
            f"{what} is {value!r}: register a class that derives from "
            f"{base.__module__}.{base.__name__}",
        )
        missing = sorted(getattr(value, "__abstractmethods__", ()))
        claim(not missing, f"{what} does not define {', '.join(missing)}")

    return check


def _adapter(what: str, entry: Any) -> None:
    _class_of(Adapter)(what, entry)
    named = isinstance(entry.models, tuple) and all(isinstance(m, str) for m in entry.models)
    claim(
        named and bool(entry.models),
        f"{what} has models={entry.models!r}: name the classes it knows, as in models=('UNet',)",
    )


_KINDS: Final[dict[str, Callable[[str, Any], None]]] = {
    "policy": _policy,
    "sampler": _sampler,
    "adapter": _adapter,
    "driver": _class_of(Driver),
    "layer": _class_of(Layer),
}
