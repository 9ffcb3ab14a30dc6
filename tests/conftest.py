"""What all tests share. Helper files are loaded by path: pytest runs with `importlib` mode."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent

# Tiny networks are slower on two threads than on one.
torch.set_num_threads(1)


def load_helper(path: str) -> ModuleType:
    """A helper file of this folder as a module, once a session."""
    name = f"_tests_{path.removesuffix('.py').replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:  # one that asks to be skipped: the next file must not find half of it
            del sys.modules[name]
            raise
    return sys.modules[name]


@pytest.fixture(scope="session")
def golden_io() -> Any:
    """The module `tests/golden_io.py`."""
    return load_helper("golden_io.py")


@pytest.fixture(scope="session")
def golden(golden_io: Any) -> Any:
    """Recorded cases of the reference implementation, Stable Diffusion family."""
    return golden_io.Golden("sd")


@pytest.fixture(scope="session")
def kit() -> Any:
    """The module `tests/core/kit.py`: small pipelines, fake backbones, snapshots."""
    return load_helper("core/kit.py")
