"""The estimators, from `tgate_sampling.guidance.ESTIMATORS`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from _generate.docstrings import prose
from _generate.markdown import code, table
from tgate_sampling import guidance
from tgate_sampling.guidance import ESTIMATORS, Estimator


def estimator_table(estimators: Mapping[str, Estimator] = ESTIMATORS) -> str:
    """Every estimator: what it puts in the place of uncond, and what it needs for that."""
    header = ("estimator", "what stands in for uncond", "looks kept", "reads the noise level")
    return table(
        header,
        (
            (code(name), valued(prose(e.fill)), str(e.memory), "yes" if e.reads_level else "no")
            for name, e in estimators.items()
        ),
    )


def valued(text: str) -> str:
    """Names of the module's constants replaced by what they are.

    >>> valued("at most `REACH`, unlike `hold`")
    'at most 1.0, unlike `hold`'
    """
    return re.sub(r"`([A-Z_]+)`", lambda found: str(getattr(guidance, found[1])), text)
