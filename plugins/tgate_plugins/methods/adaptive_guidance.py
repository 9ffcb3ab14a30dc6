"""`adaptive_guidance`: guidance goes off once both branches agree (arXiv 2312.12487).

The paper's method, carried out by our policy of that name: no package of the authors' is to be had.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from tgate_plugins._options import check_count
from tgate_plugins.cli.spec import Spec
from tgate_plugins.methods._pipes import no_guidance
from tgate_plugins.methods.ours import Ours
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting

#: Longer than any run.
NEVER: Final = 10**9


@dataclass(frozen=True)
class AdaptiveGuidance(Method):
    """Guide until cos(cond, uncond) passes a threshold, and not again after it.

    The cosine is of denoised predictions, of each sample, as our policy measures it; the paper's is
    of the backbone's outputs.

    Args:
        threshold: the cosine; the paper's is 0.991.
        look_every: look again every so many steps, as the paper does not; 0 never looks.
    """

    threshold: float = 0.991
    look_every: int = 0
    part = "related"
    source = "arXiv 2312.12487"
    adapts = True

    def __post_init__(self) -> None:
        check_count(0, look_every=self.look_every)
        self._ours()  # a threshold out of range is refused here

    def _ours(self) -> Ours:
        options = {"threshold": self.threshold, "look_every": self.look_every or NEVER}
        return Ours(Spec.make("adaptive_guidance", {**options, "estimator": "none"}))

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        return no_guidance(pipe, setting) or self._ours().refuses(pipe, setting)

    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        return self._ours().apply(pipe, setting)


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("adaptive_guidance", AdaptiveGuidance)
