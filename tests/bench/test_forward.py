"""The bench's smoke mode: what it prints, not how long things take."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def forward() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "_tests_bench_forward", Path(__file__).parent / "forward.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_table_has_a_row_for_every_gate(forward: ModuleType) -> None:
    """Time and MACs ratios with intervals, hardware, and a verdict in a sentence each."""
    said: list[str] = []
    code = forward.main(["--size", "small", "--repeats", "1"], say=said.append)
    lines = "\n".join(said).splitlines()
    (head,) = [i for i, line in enumerate(lines) if line.startswith("closed gates")]
    rows = lines[head + 1 : head + 1 + len(forward.ROWS)]
    number = r"\d+\.\d{3}"
    span = rf"{number} to {number}"
    shape = rf" +{number}x +{span} +{number}x +{number} +{span}"
    for row, line in zip(forward.ROWS, rows, strict=True):
        assert re.fullmatch(re.escape(row.name) + shape, line), line
    assert {line.split()[0] for line in lines[:5] if line} == {
        "cpu",
        "threads",
        "torch",
        "backbone",
        "clock",
    }
    verdicts = [line for line in lines if line.startswith(("PASS", "FAIL"))]
    assert len(verdicts) == 3
    assert code == int(any(line.startswith("FAIL") for line in verdicts))


def test_macs_ratios_are_the_gates_own(forward: ModuleType) -> None:
    """Open gates save nothing, guidance halves a call, and two gates save more than one."""
    unet, inputs = forward.make_unet("small")
    clock = forward.CLOCKS["cpu"]
    macs = {
        row.name: forward.measure(unet, inputs, row, repeats=1, clock=clock, tick=lambda: None).macs
        for row in forward.ROWS
    }
    assert macs["never closed, no site"] == macs["never closed, all sites"] == 1.0
    assert macs["guidance"] == pytest.approx(2.0)
    assert macs["guidance + cross"] > macs["guidance"]
    assert min(macs["cross"], macs["self"]) > 1.0


def test_the_interval_holds_the_median(forward: ModuleType) -> None:
    """A bootstrap of known pairs: inside their range, seeded, and a point where they agree."""
    row = forward.ROWS[-1]
    one = forward.Measured(row, (1.5, 1.6, 1.7, 1.8, 2.4), 2.0)
    low, high = one.interval
    assert 1.5 <= low <= one.median <= high <= 2.4
    assert one.interval == (low, high)
    assert one.arrives == (low / 2, 0.85, high / 2)
    assert forward.Measured(row, (2.0,) * 6, 2.0).arrives == (1.0, 1.0, 1.0)


def test_a_promise_that_is_not_kept_fails(forward: ModuleType) -> None:
    """The verdict is of the interval's lower end, and of our host time."""
    row = forward.ROWS[-1]
    good = forward.verdicts([forward.Measured(row, (2.0,) * 4, 2.0)], {"x": 1e-4}, 1.0)
    slow = forward.verdicts([forward.Measured(row, (1.7,) * 4, 2.0)], {"x": 1e-2}, 1.0)
    assert list(good.values()) == [True, True]
    assert list(slow.values()) == [False, False]
