"""How far a study is: bars on a terminal, a line now and then elsewhere, nothing on stdout."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tgate_plugins.study import progress as module
from tgate_plugins.study.progress import progress

PLANNED = {"emoji-sd": (3, 10), "[odd]": (0, 0)}


def said(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, line: float) -> str:
    monkeypatch.setattr(module, "LINE", line)
    monkeypatch.setattr(module, "LOOK", 0.0)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    with progress(console) as tell:
        tell(lambda: PLANNED, "emoji-sd: ours")
    return stream.getvalue()


def test_where_there_is_no_terminal_a_line_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(monkeypatch, terminal=False, line=0.0)
    assert text == "emoji-sd 3 of 10, [odd] 0 of 0 (emoji-sd: ours)\n"


def test_lines_come_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, terminal=False, line=60.0) == ""


def test_a_terminal_has_a_bar_for_each_model(monkeypatch: pytest.MonkeyPatch) -> None:
    text = said(monkeypatch, terminal=True, line=0.0)
    assert "emoji-sd" in text
    assert "3/10" in text
    assert "emoji-sd: ours" in text
    assert "[odd]" in text


def test_the_plan_is_not_looked_at_more_often_than_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking takes longer the larger the study is."""
    looks: list[int] = []
    monkeypatch.setattr(module, "LOOK", 60.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with progress(console) as tell:
        for _ in range(100):
            tell(lambda: looks.append(1) or PLANNED, "x")
    assert len(looks) == 1
