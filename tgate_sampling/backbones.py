"""From what a user hands over to the backbone in it, its adapter and its driver."""

from __future__ import annotations

from typing import Any

from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter
from tgate_sampling.driver import Driver
from tgate_sampling.errors import UnsupportedBackboneError


def adapter_for(backbone: nn.Module) -> Adapter:
    """The adapter that knows this backbone's class or one of its bases.

    Raises:
        UnsupportedBackboneError: naming the class and the adapters there are.
    """
    by_model = {m: e for e in manager().adapters.entries() for m in e.models}
    for base in type(backbone).__mro__:
        if base.__name__ in by_model:
            return by_model[base.__name__].value()
    known = "; ".join(f"{e.name} ({', '.join(e.models)})" for e in manager().adapters.entries())
    raise UnsupportedBackboneError(
        f"no adapter knows {type(backbone).__name__}. There are: {known}. Register one with the "
        "hook tgate_register_adapters."
    )


def known(module: Any) -> bool:
    try:
        adapter_for(unwrap(module))
    except UnsupportedBackboneError:
        return False
    return True


def find(target: Any, backbone: nn.Module | None) -> tuple[Driver, nn.Module]:
    """The driver of a target and the backbone in it; outsiders' drivers are asked first."""
    for entry in reversed(manager().drivers.entries()):
        if entry.value.matches(target):
            found = backbone if backbone is not None else entry.value.backbone(target, known)
            return entry.value(target), unwrap(found)
    raise UnsupportedBackboneError(
        f"{type(target).__name__} is neither a pipeline nor a backbone: pass a diffusers pipeline, "
        "or the module your loop calls."
    )


def unwrap(module: Any) -> Any:
    """The module inside `torch.compile(module)`."""
    return getattr(module, "_orig_mod", module)
