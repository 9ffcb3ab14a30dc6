"""The policies, from what plugins register."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from _generate.docstrings import arguments, first_sentence, papers, prose
from _generate.markdown import code, codes, linked, table
from tgate_plugins.cli.plugins import options
from tgate_sampling._manager import new_manager
from tgate_sampling._registry import Registry
from tgate_sampling.decision import GATES
from tgate_sampling.policy import DEFAULT_POLICY, Policy


@dataclass(frozen=True)
class Card:
    """What the docs say about a policy.

    Args:
        name: as registered.
        factory: what was registered; its parameters are the options.
        shape: the class, or a value of it: where gates, signals and estimator are read.
    """

    name: str
    factory: Any
    shape: Any

    @property
    def options(self) -> dict[str, str]:
        """Each option's default, as Python writes it."""
        return {k: _python(v) for k, v in options(self.factory).items()}

    @property
    def gates(self) -> list[str]:
        """What it closes unless told otherwise, in the order of composition."""
        return [gate for gate in GATES if gate in self.shape.gates]

    @property
    def papers(self) -> list[str]:
        """Links to what its docstring, or its module's, rests on."""
        module = sys.modules[getattr(self.shape, "__module__", __name__)]
        return list(papers(self.shape, module.__doc__ or ""))

    @property
    def estimator(self) -> str:
        """Of a policy that closes guidance; nothing is filled where it stays open."""
        return self.shape.estimator if "guidance" in self.gates else ""


def cards(registry: Registry[Any] | None = None) -> list[Card]:
    """All registered policies, the default first, then by name."""
    entries = (registry if registry is not None else new_manager().policies).entries()
    made = [Card(e.name, e.value, _shape(e.value)) for e in entries]
    return sorted(made, key=lambda card: (card.name != DEFAULT_POLICY, card.name))


def policy_table(registry: Registry[Any] | None = None) -> str:
    """Every policy in a line."""
    header = ("policy", "what it does", "closes", "measures", "fills with", "paper")
    return table(
        header,
        (
            (
                f"[`{card.name}`](#{card.name})",
                first_sentence(card.shape),
                codes(card.gates),
                codes(card.shape.signals),
                code(card.estimator),
                ", ".join(card.papers) or "-",
            )
            for card in cards(registry)
        ),
    )


def policy_sections(registry: Registry[Any] | None = None) -> str:
    """A heading for every policy, with its options."""
    return "\n".join(_section(card) for card in cards(registry))


def _section(card: Card) -> str:
    text = f"### `{card.name}`\n\n{linked(prose(card.shape))}\n"
    said = arguments(Policy, "Attributes") | arguments(card.shape)
    rows = [(code(k), code(v), said.get(k, "-")) for k, v in card.options.items()]
    return f"{text}\n{table(('option', 'default', 'meaning'), rows)}" if rows else text


def _shape(factory: Any) -> type[Policy] | Policy:
    """A class tells all without being built; some cannot be built without options."""
    made: type[Policy] | Policy = factory if isinstance(factory, type) else factory()
    return made


def _python(default: object) -> str:
    """A default as one types it; `options` has made lists of sets already."""
    if isinstance(default, list):
        return repr(tuple(g for g in GATES if g in default) or tuple(default))
    return "required" if default == "required" else repr(default)
