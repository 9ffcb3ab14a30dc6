"""From what a user hands over to the backbone in it, its adapter and its driver."""

from __future__ import annotations

from typing import Any

from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter
from tgate_sampling.driver import Driver
from tgate_sampling.errors import UnsupportedBackboneError

#: What an adapter that suits more than the classes it can name registers as its model.
ANY = "*"

#: The five lines an adapter needs, shown where none is there.
HOW_TO = """
    class MyAdapter(tgate_sampling.adapter.Adapter):
        def sites(self, backbone):
            return [Site(n, "cross", m) for n, m in backbone.named_modules() if n.endswith("attn2")]

    @tgate_sampling.hookimpl
    def tgate_register_adapters(register): register("mine", MyAdapter, models=("{name}",))
"""


def adapter_for(backbone: nn.Module) -> Adapter:
    """The adapter that knows this backbone's class or one of its bases.

    Where none does, adapters for any model are asked whether this one suits them.

    Raises:
        UnsupportedBackboneError: naming the class and the adapters there are, with the lines that
            a new one takes.
    """
    entries = manager().adapters.entries()
    by_model = {m: e for e in entries for m in e.models if m != ANY}
    for base in type(backbone).__mro__:
        if base.__name__ in by_model:
            return by_model[base.__name__].value()
    name, reasons = type(backbone).__name__, []
    for entry in reversed(entries):  # outsiders first
        if ANY in entry.models:
            adapter = entry.value()
            reason = adapter.suits(backbone)
            if reason is None:
                return adapter
            reasons.append(f"the {entry.name} one will not do, because {reason}. ")
    known = "; ".join(f"{e.name} ({', '.join(e.models)})" for e in entries if ANY not in e.models)
    raise UnsupportedBackboneError(
        f"no adapter knows {name}. There are: {known}; {''.join(reasons)}Register one with the "
        f"hook tgate_register_adapters:\n{HOW_TO.format(name=name)}"
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
