"""Puts a study on one page: values in, one HTML file out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from tgate_plugins.study.report import charts, numbers, strips, table, verdict
from tgate_plugins.study.report.pictures import ROWS, Row, Store, grid, keys
from tgate_plugins.study.report.reading import read
from tgate_plugins.study.report.values import Method, Model, Study

NAME: Final = "report.html"
PARTS: Final = {"ours": "ours", "related": "other people's", "figure": "explains, saves nothing"}
SIGNS: Final = {"better": "▲", "same": "○", "worse": "▽", "unknown": "◇"}
#: How the values of `hardware` are called; those not named here follow under their own names.
_HARDWARE: Final = ("processor", "cores", "threads", "workers", "engine", "device", "platform")
_NO_VERSION: Final = frozenset({*_HARDWARE, "tgate_sampling", "also"})


@dataclass(frozen=True, slots=True)
class Section:
    """One model, with everything that its part of the page shows."""

    model: Model
    anchor: str
    sentence: str
    contest: verdict.Contest
    groups: tuple[table.Group, ...]
    columns: tuple[table.Column, ...]
    methods: tuple[Method, ...]
    rows: tuple[Row, ...]
    total: int
    decisions: tuple[strips.Decisions, ...]
    pareto: Mapping[str, Any]
    curves: list[dict[str, Any]]
    settled: str
    fid_why: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Steps of the longest strip."""
        return max((len(s.cells) for d in self.decisions for s in d.strips), default=0)


def render(folder: Path) -> Path:
    """Write `report.html` into a study's folder, whole or not at all.

    Args:
        folder: what `tgate-sampling study` wrote; the study may be unfinished.

    Returns:
        The page.

    Raises:
        OptionError: the folder holds no study.
    """
    page = folder / NAME
    half = folder / f".{NAME}.{os.getpid()}"
    try:
        half.write_text(document(read(folder), Store(folder)), encoding="utf-8")
        os.replace(half, page)
    finally:
        half.unlink(missing_ok=True)
    return page


def document(study: Study, store: Store) -> str:
    """The page as text.

    Args:
        study: what was found.
        store: takes the pictures.
    """
    env = _environment()
    sections = [section(study, model, i, store) for i, model in enumerate(study.models)]
    return env.get_template("report.html").render(
        study=study,
        sections=sections,
        store=store,
        title=title(study),
        hardware={k: study.hardware[k] for k in _HARDWARE if study.hardware.get(k)},
        versions={k: v for k, v in study.hardware.items() if k not in _NO_VERSION and v},
        elsewhere=elsewhere(study.hardware),
        spec=json.dumps(study.spec, indent=2, ensure_ascii=False),
        charts={s.anchor: {"pareto": s.pareto, "curves": s.curves} for s in sections},
        compared=sum(s.contest.count for s in sections),
        css=_asset(env, "report.css"),
        js=_asset(env, "report.js"),
        plotly=Markup(get_plotlyjs()),
    )


def section(study: Study, model: Model, number: int, store: Store) -> Section:
    """Everything about one model."""
    groups = table.groups(model)
    order = _order(groups)
    curves = study.curves.get(model.name)
    return Section(
        model=model,
        anchor=f"model-{number}",
        sentence=verdict.sentence(model),
        contest=verdict.contest(model),
        groups=groups,
        columns=table.columns(model),
        methods=order,
        rows=grid(study, model, tuple(m for m in order if m.images), store),
        total=len(keys(model)),
        decisions=strips.decisions(order),
        pareto=charts.pareto(model),
        curves=charts.lines(curves) if curves else [],
        settled=charts.settled(curves) if curves else "",
        fid_why=tuple(sorted({m.fid_why for m in model.methods if m.ran and m.fid_why})),
    )


def title(study: Study) -> str:
    """The page's heading."""
    names = [m.name for m in study.models]
    if not names:
        return "A study without models"
    return f"Sampling with less work: {', '.join(names)}"


def elsewhere(hardware: Mapping[str, Any]) -> list[str]:
    """What differed in later sessions of a study that went on, one line each.

    >>> elsewhere({"threads": 1, "device": "cpu", "also": [{"threads": 2, "device": "cpu"}]})
    ['threads 2']
    """
    found = [
        ", ".join(f"{k} {v}" for k, v in other.items() if v != hardware.get(k))
        for other in hardware.get("also") or ()
    ]
    return [line for line in found if line]


def _order(groups: tuple[table.Group, ...]) -> tuple[Method, ...]:
    """All methods once, in the table's order."""
    listed = [m for g in groups for m in (*g.members, *([g.rival] if g.rival else []))]
    return tuple({m.label: m for m in listed}.values())


def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("tgate_plugins.study.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.update(
        parts=PARTS,
        signs=SIGNS,
        rows=ROWS,
        verdict=verdict.of,
        skipped=strips.SKIPPED,
        times=numbers.times,
        gain=verdict.shown_gain,
    )
    env.filters.update(breakable=breakable, marked=marked)
    return env


def breakable(label: str) -> Markup:
    """A label that may break where a person would break it.

    >>> breakable("fixed_step gate<1")
    Markup('fixed_<wbr>step gate&lt;1')
    """
    return Markup(re.sub(r"([_+,=])", r"\1<wbr>", str(escape(label))))


def marked(sentence: str, model: Model) -> Markup:
    """A sentence with the methods' names set apart from its words.

    >>> marked("pab beats 1 < 2.", Model("m", methods=(Method("pab", part="ours"),)))
    Markup('<b class="ours">pab</b> beats 1 &lt; 2.')
    """
    parts = {str(escape(m.label)): m.part for m in model.methods if m.part != "baseline"}
    names = "|".join(re.escape(label) for label in sorted(parts, key=len, reverse=True))
    text = str(escape(sentence))
    if names:
        within = rf"(?<![\w=])(?:{names})(?![\w=])"
        text = re.sub(within, lambda m: f'<b class="{escape(parts[m[0]])}">{m[0]}</b>', text)
    return Markup(text)


def _asset(env: Environment, name: str) -> Markup:
    """A file of the templates as it is: style sheets and scripts are no templates."""
    assert env.loader is not None
    return Markup(env.loader.get_source(env, name)[0])
