"""Finding plugins, and keeping a broken one from stopping the rest.

Our own plugins are named here as strings and come in through the same door as anybody's.
`TGATE_DISABLE_PLUGINS=a,b` leaves some out, `TGATE_PLUGIN_AUTOLOAD=0` all outsiders, and
`TGATE_TRACE_PLUGINS=1` prints every hook call.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import pluggy

from tgate_sampling import hookspecs
from tgate_sampling._registry import Registry
from tgate_sampling.errors import ObserverWarning, PluginError, PluginLoadWarning, nearest

if TYPE_CHECKING:
    from tgate_sampling.adapter import Adapter
    from tgate_sampling.driver import Driver
    from tgate_sampling.layer import Layer
    from tgate_sampling.method import Method
    from tgate_sampling.policy import Policy

BUILTINS: Final[tuple[str, ...]] = (
    "tgate_plugins.never",
    "tgate_plugins.fixed_step",
    "tgate_plugins.convergence",
    "tgate_plugins.cosine_delta",
    "tgate_plugins.tgate",
    "tgate_plugins.interleave",
    "tgate_plugins.adaptive_guidance",
    "tgate_plugins.guidance_interval",
    "tgate_plugins.error_controlled",
    "tgate_plugins.block",
    "tgate_plugins.diffusers_pipeline",
    "tgate_plugins.loop",
    "tgate_plugins.k_diffusion",
    "tgate_plugins.lcm",
    "tgate_plugins.deepcache",
    "tgate_plugins.methods",
    "tgate_adapters.diffusers_unet",
    "tgate_adapters.diffusers_dit",
    "tgate_adapters.diffusers_mmdit",
    "tgate_adapters.generic",
)


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that was left out, and why."""

    name: str
    distribution: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that is in."""

    name: str
    distribution: str
    version: str


class Manager(pluggy.PluginManager):
    """Pluggy's manager, with registries that know who owns each name."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.failures: list[PluginFailure] = []
        self.infos: dict[str, PluginInfo] = {}
        self._owner = "this session"
        self.policies: Registry[Callable[..., Policy]] = Registry("policy", self._left_out)
        self.adapters: Registry[type[Adapter]] = Registry("adapter", self._left_out)
        self.drivers: Registry[type[Driver]] = Registry("driver", self._left_out)
        self.layers: Registry[type[Layer]] = Registry("layer", self._left_out)
        self.samplers: Registry[Callable[[], Callable[..., Any]]] = Registry(
            "sampler", self._left_out
        )
        self.methods: Registry[Callable[..., Method]] = Registry("method", self._left_out)
        # The historic calls come before any plugin: each plugin then meets them alone, inside its
        # own register(), and we know whose names they are.
        self._registers: dict[str, Registry[Any]] = {
            "tgate_register_policies": self.policies,
            "tgate_register_adapters": self.adapters,
            "tgate_register_drivers": self.drivers,
            "tgate_register_layers": self.layers,
            "tgate_register_samplers": self.samplers,
            "tgate_register_methods": self.methods,
        }
        for hook, registry in self._registers.items():
            register = functools.partial(self._add, registry)
            getattr(self.hook, hook).call_historic(kwargs={"register": register})

    @property
    def registries(self) -> tuple[Registry[Any], ...]:
        return tuple(self._registers.values())

    def _add(self, registry: Registry[Any], name: str, value: Any, **models: Any) -> None:
        registry.add(name, value, owner=self._owner, **models)

    def _left_out(self) -> str:
        return "".join(
            f" Plugin {f.name!r} ({f.distribution}) was left out: {f.reason}."
            for f in self.failures
        )

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a plugin, or leave no trace of it.

        Raises:
            PluginError: it misspells a hook, takes a taken name, comes twice, or raised by itself.
        """
        label = str(name or getattr(plugin, "__name__", type(plugin).__name__))
        self._check_hooks(plugin, label)
        owners = {e.owner for registry in self.registries for e in registry.entries()}
        if self.is_registered(plugin) or self.has_plugin(label) or label in owners:
            raise PluginError(
                f"plugin {label!r} is registered already: register each one once, under a name of "
                "its own."
            )
        before, self._owner = self._owner, label
        try:
            return super().register(plugin, name)
        except Exception as error:
            for registry in self.registries:
                registry.forget(label)
            if self.is_registered(plugin):
                self.unregister(plugin)
            if isinstance(error, PluginError):
                raise
            raise PluginError(f"plugin {label!r} failed to register: {error!r}") from error
        finally:
            self._owner = before

    def unregister(self, plugin: object | None = None, name: str | None = None) -> object | None:
        """Unregister a plugin together with the names it registered."""
        label = name or self.get_name(plugin)
        gone: object | None = super().unregister(plugin, name)
        for registry in self.registries:
            registry.forget(str(label))
        return gone

    def _check_hooks(self, plugin: object, label: str) -> None:
        # Only names with the prefix: no property of a foreign object is touched.
        known = [n for n in vars(hookspecs) if n.startswith(hookspecs.PREFIX)]
        for attribute in dir(plugin):
            if not attribute.startswith(hookspecs.PREFIX) or attribute in known:
                continue
            if self.parse_hookimpl_opts(plugin, attribute) is not None:
                raise PluginError(
                    f"plugin {label!r} implements {attribute}(), which is no hook. "
                    f"{nearest(attribute, known)}"
                )

    def load_builtins(self) -> None:
        """Register our own plugins."""
        version = _own_version()
        for name in BUILTINS:
            module = importlib.import_module(name)
            self.register(module, name)
            self.infos[name] = PluginInfo(name, "tgate-sampling", version)

    def load_outsiders(self) -> None:
        """Register entry points of group `tgate_sampling`, one by one, in a stable order."""
        blocked = _names("TGATE_DISABLE_PLUGINS")
        found = metadata.entry_points(group=hookspecs.PROJECT)
        for entry in sorted(found, key=lambda e: (_distribution(e)[0], e.name)):
            if entry.name in blocked:
                continue
            distribution, version = _distribution(entry)
            try:
                self.register(entry.load(), entry.name)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                self.failures.append(PluginFailure(entry.name, distribution, version, reason))
                warnings.warn(
                    f"plugin {entry.name!r} ({distribution} {version}) was left out: {reason}",
                    PluginLoadWarning,
                    stacklevel=2,
                )
            else:
                self.infos[entry.name] = PluginInfo(entry.name, distribution, version)

    def notify(self, silenced: set[object], hook: str, **arguments: Any) -> None:
        """Call observers one by one; one that raises is warned about and silent for this run."""
        self.trace(hook)
        # Call order of pluggy: last registered, first called.
        for impl in reversed(getattr(self.hook, hook).get_hookimpls()):
            if impl.plugin in silenced:
                continue
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except Exception as error:
                silenced.add(impl.plugin)
                warnings.warn(
                    f"observer {impl.plugin_name!r} raised in {hook} and is silent for the rest "
                    f"of this run: {error!r}",
                    ObserverWarning,
                    stacklevel=2,
                )


def new_manager(*, autoload: bool = False, trace: bool = False) -> Manager:
    """A manager of its own: what tests build instead of a global switch."""
    made = Manager()
    if trace:
        made.trace.root.setwriter(sys.stderr.write)
        made.enable_tracing()
    made.load_builtins()
    if autoload:
        made.load_outsiders()
    return made


@functools.cache
def manager() -> Manager:
    """The process's manager, built when first asked for."""
    return new_manager(
        autoload=os.environ.get("TGATE_PLUGIN_AUTOLOAD", "1") != "0",
        trace=os.environ.get("TGATE_TRACE_PLUGINS") == "1",
    )


def _names(variable: str) -> frozenset[str]:
    return frozenset(n.strip() for n in os.environ.get(variable, "").split(",") if n.strip())


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "unknown")


def _own_version() -> str:
    try:
        return metadata.version("tgate-sampling")
    except metadata.PackageNotFoundError:
        return "not installed"
