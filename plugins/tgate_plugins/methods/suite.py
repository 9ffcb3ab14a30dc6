"""The methods that a comparison holds unless it is told otherwise."""

from __future__ import annotations

from typing import Any, Final

from tgate_plugins.methods._pipes import is_unet
from tgate_sampling.method import Setting
from tgate_sampling.steps import gate_index

#: Where gates close, as a share of the run.
GATE: Final = 0.4

#: What counts as little change of the first block: that of diffusers' own example, since with the
#: defaults, which are for models of many steps and blocks, nothing is skipped on emoji-pixart.
CHANGE: Final = 0.2


def suite(pipe: Any, setting: Setting) -> tuple[str, ...]:
    """Every method once or twice, in the order of a table, for `spec.parse`.

    What cannot run on this pipeline is among them: its row says why.

    Args:
        pipe: the pipeline.
        setting: of the comparison.

    Returns:
        Baselines, ours, related work, and the figure.
    """
    gate = gate_index(setting.steps, fraction=GATE)
    # As many backbone rows as a run whose guidance closes at the gate.
    fewer = max(1, (setting.steps + gate) // 2)
    baselines = ("ungated", *((f"fewer_steps:steps={fewer}",) if fewer < setting.steps else ()))
    ours = (
        "ours:policy=interleave",
        "ours:policy=interleave,gates=guidance+cross",
        "ours:policy=error_controlled",
        f"ours:policy=fixed_step,fraction={GATE},estimator=hold",
        "ours:policy=interleave,compose=block",
    )
    lite = () if is_unet(pipe) else ("taylorseer:lite=true",)
    related = (
        f"cfg_cutoff:fraction={GATE}",
        "adaptive_guidance",
        f"tgate_package:gate_step={gate}",
        f"tgate:gate_step={gate}",
        "deepcache:interval=3",
        "tomesd:ratio=0.5",
        "pab",
        "faster_cache",
        f"first_block_cache:threshold={CHANGE}",
        "taylorseer",
        *lite,
        "mag_cache",
        f"cache_dit:threshold={CHANGE}",
    )
    figure = (
        "text_window:mode=all",
        f"text_window:mode=first,m={gate}",
        f"text_window:mode=last,m={gate}",
        "text_window:mode=null",
    )
    return (*baselines, *ours, *related, *figure)
