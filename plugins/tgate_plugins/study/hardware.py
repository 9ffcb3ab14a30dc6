"""What a study was run on: times mean something only beside it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tgate_plugins.cli.models import pick_device

LIBRARIES = ("torch", "diffusers", "transformers")


def describe(device: str, threads: int, workers: int, engine: str) -> dict[str, Any]:
    """Processor, device and versions.

    Args:
        device: as the spec names it.
        threads: of a worker; 0 where torch chose.
        workers: how many.
        engine: the kind of pool they lived in.
    """
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "workers": workers,
        "engine": engine,
        "device": _device(device),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "tgate_sampling": version("tgate-sampling"),
        **{name: installed(name) for name in LIBRARIES},
    }


def processor() -> str:
    """Its name, as Linux says it; else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _device(name: str) -> str:
    device = pick_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
