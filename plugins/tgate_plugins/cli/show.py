"""One run's report, for the eyes."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tgate_plugins.cli.screen import ratio, si
from tgate_sampling.decision import GATES
from tgate_sampling.report import Report


def show_report(report: Report) -> RenderableType:
    """What was decided, step by step, and what each gate saved."""
    head = Text(f"{report.policy} on {report.backbone}", style="bold")
    head.append(f"  {len(report.steps)} steps, {report.seconds:.2f} s", style="default")
    parts: list[RenderableType] = [head, Text(totals(report))]
    if report.closed:
        parts.append(gates_table(report))
    else:
        parts.append(Text("no gate closed"))
    parts += [Text(f"step {e.step}: {e.message}", style="yellow") for e in report.events]
    return Group(*parts)


def totals(report: Report) -> str:
    """Cost of the run in one line."""
    ran, asked = report.rows
    filling = f"estimator={report.estimator}, merge={report.merge}"
    if report.refresh:
        filling += f", refresh={report.refresh}"
    spent = report.macs
    macs = "MACs not counted"
    if spent:
        share = f"{si(spent.done.true)} of {si(spent.ungated.true)}"
        macs = f"{share} MACs ({ratio(spent.speedup)})"
    cache = f"cache {report.peak_cache_bytes / 2**20:.2f} MiB at most"
    return f"{macs}, {ran} of {asked} rows, {cache}, {filling}"


def gates_table(report: Report) -> Table:
    """A line for each gate that closed: what it saved, and in which steps it was closed."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("gate")
    table.add_column("closed", justify="right")
    table.add_column("saved MACs", justify="right")
    table.add_column("share", justify="right")
    table.add_column("steps (# closed, . open)", no_wrap=len(report.steps) <= 60)
    for gate in (g for g in GATES if g in report.closed):
        saved = report.macs.saved.get(gate) if report.macs else None
        whole = report.macs.ungated.true if report.macs else 0.0
        table.add_row(
            gate,
            str(len(report.closed[gate])),
            si(saved.true if saved else None),
            f"{saved.true / whole:.1%}" if saved and whole else "-",
            strip(report, gate),
        )
    return table


def strip(report: Report, gate: str) -> Text:
    """One character a step."""
    marks = Text()
    for step in report.steps:
        closed = gate in step.decision.closed
        marks.append("#" if closed else ".", style="green" if closed else "dim")
    return marks
