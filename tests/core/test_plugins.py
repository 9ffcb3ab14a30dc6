"""Plugins: written in the test that needs them, registered in a manager of its own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

import tgate_sampling as tg
from tgate_sampling._manager import BUILTINS, Manager, new_manager
from tgate_sampling._registry import Registry
from tgate_sampling.errors import ObserverWarning, PluginError, UnknownNameError
from tgate_sampling.hookspecs import hookimpl
from tgate_sampling.testing import tiny_unet, unet_inputs


class Mine:
    """A policy plugin."""

    @hookimpl
    def tgate_register_policies(self, register: Any) -> None:
        register("mine", tg.Policy)


class Breaks:
    """Registers two policies, then breaks."""

    @hookimpl
    def tgate_register_policies(self, register: Any) -> None:
        register("first of two", tg.Policy)
        register("second of two", tg.Policy)
        raise RuntimeError("on the way")

    @hookimpl
    def tgate_run_started(self, run: Any) -> None: ...


class Misspelt:
    """Has a hook that does not exist."""

    @hookimpl
    def tgate_register_polices(self, register: Any) -> None: ...


class TakesNever:
    """Wants a name that we have."""

    @hookimpl
    def tgate_register_policies(self, register: Any) -> None:
        register("own", tg.Policy)
        register("never", tg.Policy)


def names(manager: Manager) -> list[list[str]]:
    return [list(registry) for registry in manager.registries]


def hookers(manager: Manager) -> dict[str, list[str]]:
    hooks = [h for h in vars(manager.hook) if h.startswith("tgate_")]
    return {h: [i.plugin_name for i in getattr(manager.hook, h).get_hookimpls()] for h in hooks}


def test_our_own_plugins_come_in_through_the_same_door() -> None:
    """Each built-in module is registered, and owns what it registered."""
    manager = new_manager()
    assert sorted(manager.infos) == sorted(BUILTINS)
    owners = {e.owner for registry in manager.registries for e in registry.entries()}
    assert owners == set(BUILTINS)
    assert {i.distribution for i in manager.infos.values()} == {"tgate-sampling"}
    assert manager.failures == []


def test_managers_share_nothing() -> None:
    """What is registered in one is not in another."""
    one, other = new_manager(), new_manager()
    one.register(Mine(), "mine")
    assert "mine" in one.policies
    assert "mine" not in other.policies


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        (Breaks(), r"plugin 'new' failed to register: RuntimeError\('on the way'\)"),
        (Misspelt(), "tgate_register_polices.*Did you mean 'tgate_register_policies'"),
        (TakesNever(), "new registered the policy 'never', which tgate_plugins.never registered"),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str) else "",
)
def test_a_plugin_that_fails_leaves_no_trace(plugin: object, says: str) -> None:
    """Half its policies, its observers: all gone; a clash names both owners, a misspelt hook the
    nearest."""
    manager = new_manager()
    before = names(manager), hookers(manager)
    with pytest.raises(PluginError, match=says):
        manager.register(plugin, "new")
    assert (names(manager), hookers(manager)) == before
    assert not manager.is_registered(plugin)
    manager.register(Mine(), "mine")  # and the next one is welcome
    assert "mine" in manager.policies


@pytest.mark.parametrize("same", ["name", "plugin", "class"])
def test_a_plugin_that_comes_twice_does_not_hurt_the_first(same: str) -> None:
    """The same name, the same object, or another instance that takes the same policy names."""
    manager, plugin = new_manager(), Mine()
    manager.register(plugin, None if same == "class" else "first")
    before = names(manager), hookers(manager)
    second = {"name": Breaks(), "plugin": plugin, "class": Mine()}[same]
    name = {"name": "first", "plugin": "second", "class": None}[same]
    with pytest.raises(PluginError):
        manager.register(second, name)
    assert (names(manager), hookers(manager)) == before
    assert manager.policies.get("mine") is tg.Policy


def test_a_plugin_may_be_a_module() -> None:
    """Its name is the module's."""
    module = ModuleType("a_module")
    module.tgate_register_policies = Mine().tgate_register_policies  # type: ignore[attr-defined]
    manager = new_manager()
    manager.register(module)
    (entry,) = [e for e in manager.policies.entries() if e.name == "mine"]
    assert entry.owner == "a_module"


def test_only_marked_functions_are_hooks() -> None:
    """A helper whose name begins like a hook's is no misspelt hook."""

    class Helpful:
        def tgate_helper(self) -> None: ...

    new_manager().register(Helpful(), "helpful")


# -- registries ---------------------------------------------------------------------------------


def test_a_registry_is_a_read_only_mapping() -> None:
    """Names in order of registration; an unknown one is an error with the nearest."""
    registry: Registry[int] = Registry("number", lambda: " Plugin 'x' was left out.")
    registry.add("one", 1, owner="me")
    registry.add("two", 2, owner="you", models=("Two",))
    assert (dict(registry), len(registry), "one" in registry) == ({"one": 1, "two": 2}, 2, True)
    assert registry.get("two") == 2
    assert [(e.name, e.owner, e.models) for e in registry.entries()] == [
        ("one", "me", ()),
        ("two", "you", ("Two",)),
    ]
    with pytest.raises(UnknownNameError, match=r"no number is called 'tow'.*'two'.*left out"):
        registry.get("tow")
    assert not hasattr(registry, "__setitem__")


@pytest.mark.parametrize(("owner", "replace"), [("me", False), ("you", True), ("you", False)])
def test_a_taken_name_stays_with_its_owner(owner: str, replace: bool) -> None:
    """Only the owner replaces, and only when it says so."""
    registry: Registry[int] = Registry("number")
    registry.add("one", 1, owner="me")
    with pytest.raises(PluginError, match=f"{owner} registered the number 'one', which me "):
        registry.add("one", 2, owner=owner, replace=replace)
    registry.add("one", 3, owner="me", replace=True)
    assert registry["one"] == 3


# -- observers ----------------------------------------------------------------------------------


class Observer:
    """Writes down what it is told, and raises where it is asked to."""

    def __init__(self, raises: str = "") -> None:
        self.told: list[tuple[Any, ...]] = []
        self._raises = raises

    def _note(self, what: str, *more: Any) -> None:
        self.told.append((what, *more))
        if what == self._raises:
            raise ValueError("an observer's own trouble")

    @hookimpl
    def tgate_run_started(self, run: Any) -> None:
        self._note("started")

    @hookimpl
    def tgate_step_finished(self, run: Any, step: Any, decision: Any) -> None:
        self._note("step", step.index, sorted(decision.closed))

    @hookimpl
    def tgate_run_finished(self, run: Any, report: Any) -> None:
        assert run.cache.bytes == 0
        self._note("finished", report.complete)


@pytest.fixture
def observe(kit: Any) -> Iterator[Any]:
    """Run a gated loop under observers; returns its output."""

    def loop(*observers: Observer, stop: int | None = None) -> Any:
        unet = tiny_unet()
        with ExitStack() as stack:
            for number, observer in enumerate(observers):
                stack.enter_context(kit.plugged(observer, f"observer {number}"))
            options = {"gate_step": 2, "layout": "uncond_first"}
            with tg.gate(unet, "fixed_step", **options) as gating:
                times = [901, 601, 301, 1]
                if stop is None:
                    return kit.walk(unet, times, gating=gating)
                for i, t in enumerate(gating.steps(times)):
                    unet(**unet_inputs(), timestep=t)
                    if i == stop:
                        break
        return None

    return loop


WHOLE = [
    ("started",),
    ("step", 0, []),
    ("step", 1, []),
    ("step", 2, ["cross", "guidance"]),
    ("step", 3, ["cross", "guidance"]),
    ("finished", True),
]


def test_observers_are_told_of_every_step(observe: Any) -> None:
    """Started, each step once it is done, finished; after the caches are gone."""
    observer = Observer()
    observe(observer)
    assert observer.told == WHOLE


def test_observers_are_told_of_a_run_broken_off(observe: Any) -> None:
    """The last step begun is told too."""
    observer = Observer()
    observe(observer, stop=1)
    assert observer.told == [*WHOLE[:3], ("finished", False)]


@pytest.mark.parametrize("where", ["started", "step", "finished"])
def test_an_observer_that_raises_is_silenced_for_the_run(observe: Any, where: str) -> None:
    """It is warned about once; the run and the other observers go on as if it were not there."""
    plain = observe()
    broken, whole = Observer(raises=where), Observer()
    with pytest.warns(ObserverWarning) as caught:
        out = observe(broken, whole)
    assert (out == plain).all()
    assert whole.told == WHOLE
    assert broken.told == WHOLE[: [t[0] for t in WHOLE].index(where) + 1]
    (warning,) = caught
    assert "observer 'observer 0' raised in tgate_" in str(warning.message)
    assert "an observer's own trouble" in str(warning.message)


def test_an_observer_is_heard_again_in_the_next_run(kit: Any) -> None:
    """Silence lasts for one run."""
    observer = Observer(raises="step")
    unet = tiny_unet()
    with kit.plugged(observer, "observer"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ObserverWarning)
        with tg.gate(unet, "never", layout="uncond_first") as gating:
            for _ in range(2):
                kit.walk(unet, [901, 1], gating=gating)
    assert observer.told == [("started",), ("step", 0, [])] * 2


def test_observers_may_serialise_the_report(kit: Any) -> None:
    """A report given to an observer is whole."""
    texts: list[str] = []

    class Writer:
        @hookimpl
        def tgate_run_finished(self, report: Any) -> None:
            texts.append(report.to_json())

    unet = tiny_unet()
    options = {"layout": "uncond_first"}
    with kit.plugged(Writer(), "writer"), tg.gate(unet, "never", **options) as gating:
        kit.walk(unet, [901, 1], gating=gating)
    assert json.loads(texts[0]) == gating.report.to_dict()
