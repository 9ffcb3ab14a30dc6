"""A study's outcome on the screen: a table a model, short; the report has the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tgate_plugins.cli.screen import ratio, si


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print the tables, and why what is missing is missing."""
    for model in summary["models"]:
        if model["methods"]:
            console.print(table(model))
        for method in model["methods"]:
            if method["status"] == "refused":
                line = f"{model['name']}: no row for {method['label']}: {method['why']}"
                console.print(line, markup=False, soft_wrap=True, style="dim")


def table(model: Mapping[str, Any]) -> Table:
    """One line a method that ran."""
    measure = "converged" if model["converged_steps"] else "ungated"
    title = (
        f"{model['name']}: {len(model['prompts'])} prompts x {len(model['seeds'])} seeds, "
        f"{model['steps']} steps, guidance {model['guidance_scale']:g}, PSNR against {measure}"
    )
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    made.add_column("method", min_width=24)
    for heading in ("MACs", "x", "seconds", "x", "PSNR", "p5", "object", "vs fewer steps"):
        made.add_column(heading, justify="right", no_wrap=True)
    for method in model["methods"]:
        if method["status"] != "refused":
            made.add_row(*_cells(method, measure))
    return made


def _cells(method: Mapping[str, Any], measure: str) -> list[Text]:
    name = Text(method["label"], style="bold" if method["part"] == "baseline" else "")
    if method["failed"]:
        name.append(f" ({method['failed']} failed)", style="red")
    psnr = method["measures"].get(f"{measure}.psnr")
    seconds = method["seconds"]
    plain = [
        si(method["macs"]),
        ratio(method["macs_speedup"]),
        "-" if seconds is None else f"{seconds:.3f}",
        ratio(method["seconds_speedup"]),
        _number(psnr, "mean"),
        _number(psnr, "p5"),
        _number(method["measures"].get("object"), "mean"),
    ]
    return [name, *(Text(cell) for cell in plain), _gain(method, measure)]


def _number(values: Mapping[str, Any] | None, key: str) -> str:
    if not values:
        return "-"
    value = values.get(key)
    if value is None:
        return "same" if values.get("identical") else "-"
    return f"{value:.2f}"


def _gain(method: Mapping[str, Any], measure: str) -> Text:
    over = (method["over_rival"] or {}).get(f"{measure}.psnr") or {}
    gain = over.get("mean")
    if gain is None:
        return Text("-" if method["rival"] else "")
    return Text(f"{gain:+.2f} dB", style="green" if gain > 0 else "red")
