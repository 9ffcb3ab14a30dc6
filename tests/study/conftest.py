"""A study of a pipeline of milliseconds, by its parts and by the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for _package in ("typer", "diffusers", "pydantic", "yaml", "pyarrow", "plotly", "torchmetrics"):
    pytest.importorskip(_package)

from tests.conftest import load_helper  # noqa: E402  # after importorskip

_cli = load_helper("cli/conftest.py")
cli, tiny, _wide = _cli.cli, _cli.tiny, _cli._wide

STEPS = 3
METHODS = ("ours:policy=interleave", "ours:policy=fixed_step,gate_step=1", "deepcache:interval=2")


@pytest.fixture(scope="session")
def tiny_spec(tiny: Path) -> Callable[..., Any]:
    """`tiny_spec(seeds=2)`: a study of the tiny pipeline, three methods, two prompts."""
    from tgate_plugins.study.reading import checked

    def make(**fields: Any) -> Any:
        said = {
            "models": [{"name": "tiny", "path": str(tiny)}],
            "methods": list(METHODS),
            "prompts": ["a cat", "a dog"],
            "steps": STEPS,
            "converged_steps": 4,
        }
        return checked({**said, **fields}, "the test")

    return make


@pytest.fixture(scope="session")
def kit() -> Any:
    """The module `tests/study/kit.py`."""
    return load_helper("study/kit.py")


@pytest.fixture(scope="session")
def whole(tiny_spec: Callable[..., Any], kit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished study of the tiny pipeline, in one go in one process: what all others equal."""
    return kit.run(tiny_spec(), tmp_path_factory.mktemp("whole"))


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    # A line on stderr every so many seconds: how many there are hangs on the machine's load.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tgate_plugins.study.progress.LINE", float("inf"))
        yield
