"""The real `k_diffusion.sampling` and `k_diffusion.external`, without torchvision, CLIP or wandb.

`import k_diffusion` runs an `__init__` that imports everything its training script needs; three of
those packages cannot be installed beside a CPU build of torch and diffusers. The samplers need none
of them, so a bare package stands in for that `__init__`, and the files under test are PyPI's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

#: `k_diffusion.utils` imports this one name, for two helpers that turn tensors into PIL images.
STUBS = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")

#: torchsde compares the ends of its interval after rounding them to float32, and says so.
WARNINGS = ("ignore:Should have t[ab]:UserWarning",)


def load(name: str) -> ModuleType:
    """`k_diffusion.NAME`, kept in `sys.modules`; the stubs are gone when this returns."""
    if "k_diffusion" not in sys.modules:
        sys.modules["k_diffusion"] = _bare_package()
    missing = [stub for stub in STUBS if stub not in sys.modules]
    for stub in missing:
        sys.modules[stub] = ModuleType(stub)
    sys.modules[STUBS[1]].functional = sys.modules[STUBS[2]]  # type: ignore[attr-defined]
    try:
        return importlib.import_module(f"k_diffusion.{name}")
    finally:
        for stub in missing:
            del sys.modules[stub]


def _bare_package() -> ModuleType:
    """`k_diffusion` with its own path and nothing imported."""
    spec = importlib.util.find_spec("k_diffusion")  # finds it; runs none of it
    if spec is None:
        raise ImportError("no k_diffusion: pip install --no-deps k-diffusion==0.1.1.post1")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__spec__ = spec
    return package


sampling = load("sampling")
external = load("external")
