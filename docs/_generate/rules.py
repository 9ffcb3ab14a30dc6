"""What goes together, from `tgate_sampling.compose.RULES`."""

from __future__ import annotations

from collections.abc import Sequence

from _generate.markdown import table
from tgate_sampling.compose import RULES, Rule


def rule_table(rules: Sequence[Rule] = RULES) -> str:
    """The legality table, as `tgate-sampling compose` prints it."""
    rows = [(r.first, r.second, r.verdict, r.reason) for r in rules]
    return table(("this", "beside", "goes", "because"), rows)
