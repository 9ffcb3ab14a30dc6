"""The command line, from the typer application itself."""

from __future__ import annotations

import re
from typing import Any

import typer

from _generate.markdown import code, table
from tgate_plugins.cli.app import app as our_app

PROGRAM = "tgate-sampling"
MARKUP = re.compile(r"\[/?[a-z]+\]")


def command_sections(app: typer.Typer = our_app) -> str:
    """A heading for every command: usage, what it does, arguments and options, examples.

    Only attributes are read that click has had for years and that newer typers, which carry a
    click of their own, have kept.
    """
    group: Any = typer.main.get_command(app)
    shown = [(n, c) for n, c in group.commands.items() if not c.hidden]
    return "\n".join(_section(name, command) for name, command in shown)


def _section(name: str, command: Any) -> str:
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    usage = " ".join([PROGRAM, name, "[OPTIONS]", *(_place(p) for p in shown if _is_argument(p))])
    rows = [(_words(p), _default(p), p.help or "-") for p in shown]
    parts = [
        f"## `{name}`\n",
        f"{(command.help or '').strip()}\n",
        f"```text\n{usage.strip()}\n```\n",
        table(("argument or option", "default", "meaning"), rows) if rows else "",
        _examples(command.epilog or ""),
    ]
    return "\n".join(part for part in parts if part)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _place(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    return word if argument.required else f"[{word}]"


def _words(parameter: Any) -> str:
    if _is_argument(parameter):
        return code(parameter.metavar or parameter.name.upper())
    spellings: list[str] = [*parameter.opts, *parameter.secondary_opts]
    first, *others = spellings
    value = f" {parameter.metavar}" if parameter.metavar else ""
    return ", ".join([code(first + value), *map(code, others)])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if isinstance(default, bool):
        return code(parameter.opts[0]) if default and parameter.secondary_opts else "-"
    return "-" if default is None else code(str(default))


def _examples(epilog: str) -> str:
    """Lines that call the program as a block, everything else as prose."""
    lines = [line.strip() for line in MARKUP.sub("", epilog).splitlines()]
    calls = [line for line in lines if line.startswith(PROGRAM)]
    said = " ".join(line for line in lines if line and line not in calls and line != "Examples")
    block = "```console\n" + "".join(f"{call}\n" for call in calls) + "```\n" if calls else ""
    return "\n".join(part for part in (block, f"{said}\n" if said else "") if part)
