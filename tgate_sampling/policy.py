"""Policies: who decides, step by step, which parts of the model's work are still worth doing.

A policy is a value. It stores its options, answers `decide`, and keeps no state of a run: what a
run must remember lives in the function that `begin` returns.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, TypeAlias, overload

from tgate_sampling._manager import manager
from tgate_sampling.decision import DEFAULT_GATES, GATES, Answer
from tgate_sampling.errors import OptionError, nearest
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext

#: What a run asks at each step.
Decider: TypeAlias = Callable[[StepContext, Signals], Answer]

#: Options of `gate`, `attach` and `wrap_sampler` themselves; no policy may use these names.
RESERVED: frozenset[str] = frozenset(
    {"layout", "compose", "estimator", "refresh", "merge", "backbone"}
)

#: The policy when none is named. It needs no number, never turns guidance off, and closes the
#: gate only where this very run has shown that the estimate is good; where it is not (few steps,
#: high guidance) it computes both branches, as if it were not there. docs/quality.md has it beside
#: fewer steps at equal cost, the row that a hard gate at any step loses to.
DEFAULT_POLICY = "error_controlled"

#: What can be measured: guidance and attention; blocks and their parts return nests of tensors.
MEASURED = GATES[:3]


class Policy:
    """Base class of policies; a frozen dataclass with a `decide` is all there is to write.

    Attributes:
        gates: what it may ever close; other sites are not touched at all.
        signals: attention kinds it wants measured ("cross", "self").
        estimator: how a closed guidance gate is filled unless the user says otherwise. `hold`,
            because guidance that is simply dropped is what costs detail and colour.
        merge: the merge rule unless the user says otherwise.
        runs: which branch runs while guidance is closed.
        warm_up: steps at the start in which nothing closes; attention is stored from the last of
            them on.
        branch: for the block gate, how much of the backbone always runs (arXiv 2312.00858).
    """

    gates: Collection[str] = DEFAULT_GATES
    signals: Collection[str] = ()
    estimator: str = "hold"
    merge: str = "cond"
    runs: Literal["cond", "uncond"] = "cond"
    warm_up: int = 0
    branch: int = 0

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        """What to close in this step; sees the signals of earlier steps only."""
        raise NotImplementedError(f"{type(self).__name__} must define decide(step, signals)")

    def plan(self, total: int) -> Sequence[Answer] | None:
        """The answers for a run of `total` steps, if they can be known before it starts.

        A planned policy stores only at its last open step, and so holds no memory before.
        """
        return None

    def begin(self) -> Decider:
        """A fresh decider for one run; stateful policies return a closure here."""
        return self.decide

    @property
    def measured(self) -> Collection[str]:
        """The gates it closes by what it measures; `few_steps` may keep these open."""
        return self.gates if self.signals else ()


@dataclasses.dataclass(frozen=True)
class FunctionPolicy(Policy):
    """A plain function as a policy: `function(step)` or `function(step, signals)`."""

    function: Callable[..., Answer]
    name: str
    gates: Collection[str] = GATES[:3]
    signals: Collection[str] = ()

    def __call__(self, *args: Any) -> Answer:
        return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        # `@policy` has taken the function's name, by which pickle would look the function up.
        where = self.function.__module__, self.function.__qualname__
        if _by_name(*where) is self:
            return _by_name, where
        return FunctionPolicy, (self.function, self.name, self.gates, self.signals)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self.function(*(step, signals)[: self._arity])

    @functools.cached_property
    def _arity(self) -> int:
        # A default is the function's own: `lambda step, gate=5: step.index >= gate`.
        parameters = inspect.signature(self.function).parameters.values()
        return sum(p.default is p.empty or p.name == "signals" for p in parameters)


def _by_name(module: str, name: str) -> Any:
    """What a module holds under a name; None where it is nested or gone."""
    return getattr(importlib.import_module(module), name, None)


@overload
def policy(target: Callable[..., Answer]) -> FunctionPolicy: ...
@overload
def policy(
    target: None = None,
    *,
    name: str | None = None,
    gates: Collection[str] = GATES[:3],
    signals: Collection[str] = (),
) -> Callable[[Callable[..., Answer]], FunctionPolicy]: ...
def policy(
    target: Callable[..., Answer] | None = None,
    *,
    name: str | None = None,
    gates: Collection[str] = GATES[:3],
    signals: Collection[str] = (),
) -> Any:
    """Make a policy of a function, and register it under its name for this session.

    Args:
        target: `f(step)` or `f(step, signals)`; returns whether to close guidance and cross, or a
            set of gate names, or a `Decision`.
        name: the name to register; the function's own by default.
        gates: what the function may close.
        signals: attention kinds to measure for it.

    >>> @policy
    ... def second_half(step):
    ...     return step.progress >= 0.5
    >>> second_half.decide(StepContext.at(5, 10), Signals())
    True

    Running the definition again replaces the policy, as a notebook needs it.
    """
    if target is None:
        return functools.partial(_make_policy, name=name, gates=gates, signals=signals)
    return _make_policy(target, name=name, gates=gates, signals=signals)


def _make_policy(
    function: Callable[..., Answer],
    *,
    name: str | None,
    gates: Collection[str],
    signals: Collection[str],
) -> FunctionPolicy:
    label = str(name or getattr(function, "__name__", "policy"))
    for gate in gates:
        if gate not in GATES:
            raise OptionError(f"gates={gate!r} is unknown. {nearest(gate, GATES)}")
    for signal in signals:
        if signal not in MEASURED:
            raise OptionError(f"signals={signal!r} is unknown. {nearest(signal, MEASURED)}")
    value = FunctionPolicy(function, label, frozenset(gates), tuple(signals))
    manager().policies.add(label, lambda: value, owner="this session", replace=True)
    return value


def policies() -> tuple[str, ...]:
    """The names `get_policy` knows, sorted."""
    return tuple(sorted(manager().policies))


def get_policy(name: str, **options: Any) -> Policy:
    """Build a registered policy by name.

    Raises:
        UnknownNameError: no policy of that name; the sentence holds the nearest.
        OptionError: it has no such option, or the value is out of range.

    >>> get_policy("fixed_step", gate_step=10).gate_step
    10
    """
    factory = manager().policies.get(name)
    known = [p for p in inspect.signature(factory).parameters if p not in RESERVED]
    for option in options:
        if option not in known:
            # With one option there is nothing to confuse it with; with none, say so.
            raise OptionError(f"policy {name!r} has no option {option!r}. {nearest(option, known)}")
    built: Policy = factory(**options)
    return built


def choose_policy(
    value: Policy | Callable[..., Answer] | str | None, options: dict[str, Any]
) -> Policy:
    """`as_policy`, or the default policy where none is named.

    Raises:
        OptionError: options were given without a policy, or beside a ready-made one.
    """
    if value is not None:
        return as_policy(value, options)
    if options:
        raise OptionError(
            f"{', '.join(sorted(options))} without a policy: name the policy these belong to, as "
            "in gate(pipe, 'fixed_step', gate_step=10)."
        )
    return get_policy(DEFAULT_POLICY)


def as_policy(value: Policy | Callable[..., Answer] | str, options: dict[str, Any]) -> Policy:
    """What a user put where a policy goes: a name, a policy, or a function.

    Raises:
        OptionError: options were given beside a ready-made policy.
    """
    if isinstance(value, str):
        return get_policy(value, **options)
    if options:
        given = ", ".join(sorted(options))
        raise OptionError(
            f"{given}: options go with a policy's name, and {value!r} is a policy already. "
            "Build it with these options, or pass its name."
        )
    if isinstance(value, Policy):
        return value
    if isinstance(value, type):
        return as_policy(value(), {})
    if callable(value):
        return FunctionPolicy(value, str(getattr(value, "__name__", "policy")))
    raise OptionError(
        f"policy={value!r} is neither a name, a policy nor a function. "
        f"Known names: {', '.join(policies())}."
    )


def describe(value: Policy) -> str:
    """A policy in one line, as `fixed_step(gate_step=10)`: only what was set.

    >>> describe(get_policy("fixed_step", gate_step=10))
    'fixed_step(gate_step=10)'
    """
    if isinstance(value, FunctionPolicy):
        return value.name
    label = getattr(value, "name", None) or type(value).__name__
    if not dataclasses.is_dataclass(value):
        return str(label)
    fields = [f for f in dataclasses.fields(value) if f.repr]
    if not fields:
        return str(label)
    shown = [
        f"{f.name}={getattr(value, f.name)!r}"
        for f in fields
        if getattr(value, f.name) != f.default and f.name != "name"
    ]
    return f"{label}({', '.join(shown)})"
