"""`compose`: the legality table, as the code has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tgate_sampling.compose import RULES

Cli = Callable[..., Any]


def test_every_rule_is_printed_with_its_reason(cli: Cli) -> None:
    """The table shows each pair, the verdict and why."""
    answer = cli("compose", "--list")
    assert (answer.code, answer.err) == (0, "")
    assert [r for r in RULES if r.reason.split(":")[0] not in answer.out] == []


def test_json_holds_the_same_rules(cli: Cli) -> None:
    """Programs read what people see."""
    listing = json.loads(cli("compose", "--json").out)
    assert [(r["first"], r["second"], r["verdict"]) for r in listing] == [
        (r.first, r.second, r.verdict) for r in RULES
    ]
