"""What gating costs and saves in single forwards: `make bench`.

A random UNet in the shape of SD-1.5, batch 2, is timed gated against bare, call by call in the
order bare, gated, gated, bare, so that a machine that slows down slows both. Each row of the table
is the median of all such pairs with a bootstrap interval. What the gates promise are MACs; the
verdict is how much of that promise arrives in time.

Then whole runs of the model that comes with the package, for orientation: no verdict on those.
"""

from __future__ import annotations

import argparse
import copy
import functools
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from tqdm import tqdm

import tgate_sampling as tg
from tgate_sampling.report import spend

#: The lower end of the interval of (time saved / MACs saved) must reach this.
GOAL = 0.90
#: What hooks whose gates stay open may cost, as a share of a bare forward (promise 1).
HOST_GOAL = 0.005

TOKENS = 77
EMOJI = Path(__file__).parents[2] / "zoo" / "tgate_zoo" / "models" / "emoji-sd"

#: (configuration, latent side) by --size. `full` has 69.6 M parameters and SD-1.5's kinds of block.
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "full": ({"block_out_channels": (96, 192, 384, 512), "cross_attention_dim": 512}, 64),
    "small": (
        {
            "block_out_channels": (16, 32),
            "cross_attention_dim": 32,
            "norm_num_groups": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        },
        16,
    ),
}


Clock: TypeAlias = Callable[[], float]

#: On one thread the process's own time is wall time on a core that nobody else uses.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: as printed.
        gates: what closes; empty for a gate that stays open.
        options: how the gating is made.
    """

    name: str
    gates: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def gate(self, unet: Any) -> tg.Gating:
        """The gating, not yet entered."""
        options = self.options or {"policy": "fixed_step", "gate_step": 1, "gates": self.gates}
        return tg.gate(unet, layout="uncond_first", **options)


NEVER = {"policy": "fixed_step", "gate_step": 10**9}

ROWS = (
    Row("never closed, no site", (), {"policy": "never"}),
    Row("never closed, all sites", (), {**NEVER, "gates": ("guidance", "cross", "self")}),
    Row("guidance", ("guidance",)),
    Row("cross", ("cross",)),
    Row("self", ("self",)),
    Row("guidance + cross", ("guidance", "cross")),
)


@dataclass(frozen=True)
class Measured:
    """What a row came to.

    Args:
        row: which.
        ratios: seconds bare / seconds gated of each pair.
        macs: MACs bare / MACs gated.
    """

    row: Row
    ratios: tuple[float, ...]
    macs: float

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the median, seeded."""
        draw = random.Random(0)
        medians = sorted(
            statistics.median(draw.choices(self.ratios, k=len(self.ratios))) for _ in range(4000)
        )
        return medians[100], medians[-101]

    @property
    def arrives(self) -> tuple[float, float, float]:
        """Low, median and high of the share of the saving in MACs that arrives in time."""
        low, high = self.interval
        return low / self.macs, self.median / self.macs, high / self.macs


def make_unet(size: str) -> tuple[Any, dict[str, Any]]:
    """A random UNet and the inputs of one call of two branches."""
    import diffusers

    config, side = SIZES[size]
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(sample_size=side, layers_per_block=1, **config).eval()
    sample = torch.randn(1, 4, side, side).repeat(2, 1, 1, 1)
    text = torch.randn(2, TOKENS, config["cross_attention_dim"])
    return unet, {"sample": sample, "encoder_hidden_states": text}


def twin(unet: Any) -> Any:
    """Another module over the same weights, to be called bare beside a gated one."""
    return copy.deepcopy(unet, {id(p): p for p in (*unet.parameters(), *unet.buffers())})


def timed(function: Callable[[], Any], clock: Clock) -> float:
    began = clock()
    function()
    return clock() - began


def measure(
    unet: Any, inputs: dict[str, Any], row: Row, *, repeats: int, clock: Clock, tick: Any
) -> Measured:
    """Pairs of bare and gated forwards; the gated ones past the first, which stores."""
    bare, ratios = twin(unet), list[float]()
    with row.gate(unet) as gating, torch.no_grad():
        steps = gating.steps(range(2 * repeats + 2, 0, -1))

        def gated() -> float:
            timestep = next(steps)
            return timed(lambda: unet(**inputs, timestep=timestep), clock)

        def plain() -> float:
            return timed(lambda: bare(**inputs, timestep=1), clock)

        gated(), gated(), plain()  # stores, narrows, warms up
        for _ in range(repeats):
            before, first, second, after = plain(), gated(), gated(), plain()
            ratios += [before / first, after / second]
            tick()
        steps.close()
    (call,) = gating.report.steps[-1].calls
    spent = spend(call, gating.report.cost)
    assert spent is not None
    return Measured(row, tuple(ratios), spent.speedup)


class Skeleton:
    """A UNet whose forward calls its attention modules, which do nothing: what is left is ours."""

    def __init__(self, unet: Any, inputs: dict[str, Any]) -> None:
        self.unet = twin(unet)
        self._inputs = inputs
        self._answer = (inputs["sample"],)
        sites = [m for n, m in self.unet.named_modules() if n.endswith(("attn1", "attn2"))]
        for site in sites:
            site.forward = self._nothing

        def forward(*_: Any, **__: Any) -> Any:
            for site in sites:
                site(inputs["sample"])
            return self._answer

        self.unet.forward = forward

    def _nothing(self, *_: Any, **__: Any) -> torch.Tensor:
        sample: torch.Tensor = self._inputs["sample"]
        return sample

    def seconds(self, steps: Iterator[int]) -> float:
        """The median time of a call."""
        with torch.no_grad():
            return statistics.median(
                timed(lambda: self.unet(**self._inputs, timestep=1), time.process_time)
                for _ in steps
            )


def host_seconds(unet: Any, inputs: dict[str, Any], row: Row, calls: int = 400) -> float:
    """Our own host time in one call: of a skeleton gated, less that of it bare."""
    skeleton = Skeleton(unet, inputs)
    bare = skeleton.seconds(iter(range(calls)))
    with row.gate(skeleton.unet) as gating:
        return skeleton.seconds(gating.steps(range(calls))) - bare


def table(measured: Sequence[Measured]) -> list[str]:
    """The table, one line a row, under its head."""
    head = f"{'closed gates':<24}{'time ratio':>11}{'95 % interval':>18}{'MACs ratio':>12}"
    lines = [f"{head}{'arrives':>9}{'95 % interval':>18}"]
    for one in measured:
        (low, high), (least, share, most) = one.interval, one.arrives
        lines.append(
            f"{one.row.name:<24}{one.median:>10.3f}x{f'{low:.3f} to {high:.3f}':>18}"
            f"{one.macs:>11.3f}x{share:>9.3f}{f'{least:.3f} to {most:.3f}':>18}"
        )
    return lines


def verdicts(measured: Sequence[Measured], host: dict[str, float], bare: float) -> dict[str, bool]:
    """Each promise in a sentence, and whether it held."""
    (both,) = [m for m in measured if set(m.row.gates) == {"guidance", "cross"}]
    least = both.arrives[0]
    found = {
        f"guidance + cross: at least {least:.3f} of the saving in MACs arrives in time "
        f"(goal {GOAL:.2f})": least >= GOAL
    }
    for name, seconds in host.items():
        share = seconds / bare
        found[
            f"{name}: our own host time is {seconds * 1e6:.0f} us, {share:.3%} of a bare forward "
            f"(goal {HOST_GOAL:.1%})"
        ] = share <= HOST_GOAL
    return found


def hardware() -> list[str]:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    name = ", ".join(sorted(names)) or platform.processor()
    return [
        f"cpu            {name}, {os.cpu_count()} cores",
        f"threads        {torch.get_num_threads()}, load {load:.1f}",
        f"torch          {torch.__version__}",
    ]


def whole_runs(say: Callable[[str], None], repeats: int, clock: Clock) -> None:
    """Seconds of whole images on emoji-sd, best of some."""
    from tgate_zoo import loader

    pipe = loader.load("emoji-sd")
    settings: dict[str, dict[str, Any]] = {
        "bare": {},
        "never": {"policy": "never"},
        "fixed_step(gate_step=10)": {"policy": "fixed_step", "gate_step": 10},
        "the default policy": {"policy": None},
    }
    say(f"\nwhole runs of {EMOJI.name}: 25 steps, guidance 4, latents only, best of {repeats}")
    for name, options in settings.items():
        gating = tg.attach(pipe, **options) if options else None
        call = {"num_inference_steps": 25, "guidance_scale": 4.0, "output_type": "latent"}
        run = functools.partial(pipe, "a red apple", **call)
        seconds = min(timed(run, clock) for _ in range(repeats))
        rows = "" if gating is None else "   rows {} of {}".format(*gating.report.rows)
        say(f"  {name:<26}{seconds:>8.3f} s{rows}")
        if gating is not None:
            gating.detach()


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = tqdm.write) -> int:
    """Measure, print, and return 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6, help="rounds of two pairs for each row")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu where the core is shared"
    )
    asked = parser.parse_args(arguments)
    clock = CLOCKS[asked.clock]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

    unet, inputs = make_unet(asked.size)
    millions = sum(p.numel() for p in unet.parameters()) / 1e6
    say("\n".join(hardware()))
    say(f"backbone       UNet, {millions:.1f} M parameters, {tuple(inputs['sample'].shape)}")
    say(f"clock          {asked.clock}\n")
    with tqdm(total=len(ROWS) * asked.repeats, unit="round", file=sys.stderr) as bar:
        measured = [
            measure(unet, inputs, row, repeats=asked.repeats, clock=clock, tick=bar.update)
            for row in ROWS
        ]
    with torch.no_grad():
        bare = statistics.median(timed(lambda: unet(**inputs, timestep=1), clock) for _ in range(3))
    host = {row.name: host_seconds(unet, inputs, row) for row in ROWS if not row.gates}
    say("\n".join(table(measured)))
    say(f"\nbare forward   {bare:.3f} s")
    kept = verdicts(measured, host, bare)
    for sentence, held in kept.items():
        say(f"{'PASS' if held else 'FAIL'}  {sentence}")
    if EMOJI.exists() and asked.size == "full":
        whole_runs(say, 3, clock)
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
