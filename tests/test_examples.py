"""Every script in docs/examples runs as a user would run it, and prints its reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "examples"

#: A line of each script's output, as a pattern.
UNET = r"UNet2DConditionModel \(diffusers-unet\)"
LINES = {
    "register_policy.py": rf"second_half on {UNET}: \d+ steps",
    "k_diffusion_sampler.py": rf"interleave\(\) on {UNET}: 20 steps",
    "deepcache_custom_loop.py": rf"interleave\(\) \+ block\(\) on {UNET}: 20 steps",
}

#: Runs scripts where the zoo's models, k-diffusion and DeepCache shall be missing.
WITHOUT = """
import runpy, sys
for name in ("tgate_zoo", "k_diffusion", "DeepCache"):
    sys.modules[name] = None
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
"""


def run(*arguments: str) -> str:
    """What a script prints; it must end well, and reach for no network."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **offline}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run() -> None:
    """None is forgotten here."""
    assert {path.name for path in FOLDER.glob("*.py")} == set(LINES)


@pytest.mark.parametrize("name", LINES)
def test_an_example_runs_as_it_stands(name: str) -> None:
    """With whatever is installed: exit code 0, and a report that says what was saved."""
    printed = run(str(FOLDER / name))
    assert re.search(LINES[name], printed)
    assert re.search(r"guidance +saved .* \(\d", printed)


def test_examples_run_without_anything_else() -> None:
    """No model of the zoo, no k-diffusion, no DeepCache: they fall back and say the same."""
    printed = run("-c", WITHOUT, *(str(FOLDER / name) for name in LINES))
    for line in LINES.values():
        assert re.search(line, printed)
    assert printed.count("guidance     saved") == 5


@pytest.mark.parametrize("name", LINES)
def test_an_example_fits_on_a_page(name: str) -> None:
    """Fewer than 60 lines, to be read and copied."""
    assert len((FOLDER / name).read_text().splitlines()) < 60
