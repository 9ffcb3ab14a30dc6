"""`compose`: what goes together, and why what does not, does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tgate_sampling.compose import RULES


def to_list() -> list[dict[str, Any]]:
    """The legality table, as plain values for JSON."""
    return [asdict(rule) for rule in RULES]


def print_rules(console: Console) -> None:
    """The legality table."""
    table = Table("this", "beside", "goes", "because", box=box.SIMPLE_HEAD, pad_edge=False)
    styles = {"yes": "green", "refreshes": "yellow", "no": "red"}
    for rule in RULES:
        verdict = f"[{styles[rule.verdict]}]{rule.verdict}[/]"
        table.add_row(rule.first, rule.second, verdict, rule.reason)
    console.print(table)
    console.print(
        "Gates have an order: guidance outside, blocks next, attention inside. 'refreshes': legal, "
        "and the second runs in full where the first changes rows or must store.",
        markup=False,
    )
