"""The comparison as a table, and what it says in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from tgate_plugins.cli.metrics import Spread
from tgate_plugins.cli.screen import ratio, si
from tgate_plugins.cli.summary import Group, Row


def comparison_table(groups: Sequence[Group], rows: Mapping[str, Row], title: str) -> Table:
    """One line a method, a section for each group of equal cost.

    Args:
        groups: the sections.
        rows: by method label.
        title: over the table.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("method", min_width=24)
    for heading in ("MACs", "x", "seconds", "x", "PSNR mean", "worst", "SSIM mean", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("vs fewer steps", justify="right", no_wrap=True)
    for group in groups:
        table.add_row(Text(group.title, style="dim italic"))
        for method in group.members:
            table.add_row(*cells(rows[method.label]))
        table.add_section()
    return table


def cells(row: Row) -> list[Text]:
    """A method's line."""
    name = Text(f"  {row.method.label}", style="" if row.method.kind == "gated" else "bold")
    if row.failed:
        name.append(f" ({row.failed} failed)", style="red")
    if row.cost is None:
        return [name, *(Text("-") for _ in range(10))]
    plain = [
        si(row.cost.macs),
        ratio(row.speedup),
        "-" if row.seconds is None else f"{row.seconds:.3f}",
        ratio(row.faster),
        *_both(row.psnr, ".2f"),
        *_both(row.ssim, ".4f"),
        f"{row.cost.rows:g}" if row.cost.rows % 1 == 0 else f"{row.cost.rows:.1f}",
    ]
    return [name, *(Text(cell) for cell in plain), _gain(row)]


def verdict(rows: Sequence[Row]) -> str:
    """Which methods are worth having: those that beat fewer steps at no lower cost."""
    judged = [row for row in rows if row.gain is not None]
    if not judged:
        return "No gated method has a fewer-steps run to be compared with."
    won = [f"{row.method.label} ({_both_gains(row)})" for row in judged if (row.gain or 0) > 0]
    head = (
        f"{len(won)} of {len(judged)} gated methods come nearer to the reference than fewer steps"
    )
    return f"{head} of no higher cost: {'; '.join(won)}." if won else f"{head} of no higher cost."


def _both(spread: Spread | None, form: str) -> tuple[str, str]:
    if spread is None:
        return "-", "-"
    return _number(spread.mean, form), _number(spread.worst, form)


def _number(value: float, form: str) -> str:
    return "same" if math.isinf(value) else format(value, form)


def _both_gains(row: Row) -> str:
    return f"mean {row.gain:+.2f}, worst {row.worst_gain:+.2f} dB"


def _gain(row: Row) -> Text:
    if row.gain is None:
        return Text("" if row.rival is None else "-")
    return Text(f"{row.gain:+.2f} dB", style="green" if row.gain > 0 else "red")
