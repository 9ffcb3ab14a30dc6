"""`plugins`: what is registered, by whom, and what was left out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tgate_plugins.cli.samplers import SAMPLERS
from tgate_sampling._manager import Manager, manager
from tgate_sampling._registry import Entry, Registry
from tgate_sampling.errors import PluginLoadWarning
from tgate_sampling.policy import RESERVED


def quiet_manager() -> Manager:
    """The process's manager; failures are in the listing, so that no warning need say them too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginLoadWarning)
        return manager()


def to_dict(found: Manager) -> dict[str, Any]:
    """Everything registered, as plain values for JSON."""
    listed: dict[str, Registry[Any]] = {
        "adapters": found.adapters,
        "drivers": found.drivers,
        "layers": found.layers,
        "samplers": found.samplers,
        "methods": found.methods,
    }
    result: dict[str, Any] = {"policies": [_policy(found, e) for e in found.policies.entries()]}
    result |= {kind: _entries(found, registry) for kind, registry in listed.items()}
    result["schedulers"] = [
        {"name": name, "class": sampler.scheduler, "config": dict(sampler.config)}
        for name, sampler in SAMPLERS.items()
    ]
    result["plugins"] = [asdict(info) for info in found.infos.values()]
    result["failures"] = [asdict(failure) for failure in found.failures]
    return result


def options(factory: Callable[..., Any]) -> dict[str, Any]:
    """A policy's options and their defaults.

    >>> from tgate_plugins.tgate import TGate
    >>> options(TGate)["gate_step"]
    10
    """
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: _plain(p.default) for p in parameters if p.name not in RESERVED}


def print_plugins(found: Manager, console: Console) -> None:
    """Everything registered, as tables."""
    listing = to_dict(found)
    table = _table("policies", "options and defaults")
    for policy in listing["policies"]:
        said = ", ".join(f"{k}={_show(v)}" for k, v in policy["options"].items())
        table.add_row(policy["name"], said or "-", policy["owner"], policy["version"])
    console.print(table)
    table = _table("adapters", "model classes")
    for adapter in listing["adapters"]:
        models = ", ".join(adapter["models"])
        table.add_row(adapter["name"], models, adapter["owner"], adapter["version"])
    console.print(table)
    for kind in ("drivers", "layers", "samplers", "methods"):
        table = _table(kind)
        for (owner, version), names in _by_owner(listing[kind]).items():
            table.add_row(", ".join(names), owner, version)
        console.print(table)
    console.print(f"--sampler takes: {', '.join(SAMPLERS)}", markup=False)
    if listing["failures"]:
        table = Table("plugin left out", "distribution", "version", "reason", box=box.SIMPLE_HEAD)
        for failure in listing["failures"]:
            table.add_row(*(failure[k] for k in ("name", "distribution", "version", "reason")))
        console.print(table, style="red")


def _entries(found: Manager, registry: Registry[Any]) -> list[dict[str, Any]]:
    return [
        {"name": e.name, **_origin(found, e), **({"models": list(e.models)} if e.models else {})}
        for e in registry.entries()
    ]


def _policy(found: Manager, entry: Entry[Callable[..., Any]]) -> dict[str, Any]:
    return {"name": entry.name, **_origin(found, entry), "options": options(entry.value)}


def _origin(found: Manager, entry: Entry[Any]) -> dict[str, str]:
    info = found.infos.get(entry.owner)
    return {
        "owner": entry.owner,
        "distribution": info.distribution if info else "-",
        "version": info.version if info else "-",
    }


def _by_owner(listed: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    owners: dict[tuple[str, str], list[str]] = {}
    for entry in listed:
        owners.setdefault((entry["owner"], entry["version"]), []).append(entry["name"])
    return owners


def _plain(default: object) -> Any:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, Collection) and not isinstance(default, str):
        return sorted(default)
    return default


def _show(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(kind: str, *middle: str) -> Table:
    return Table(kind, *middle, "owner", "version", box=box.SIMPLE_HEAD, pad_edge=False)
