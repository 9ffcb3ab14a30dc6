"""The runs of one comparison, in an order that favours no method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tgate_plugins.cli.bench import Bench, Method, Shot, steps_within
from tgate_plugins.cli.models import default_prompts
from tgate_plugins.cli.spec import Spec
from tgate_plugins.cli.summary import Group, arrange, mean_cost


@dataclass(frozen=True)
class Settings:
    """What `compare` was asked to do; see its `--help`."""

    prompts: tuple[str, ...]
    model: str
    policies: tuple[str, ...]
    steps: int
    guidance_scale: float
    seeds: int
    seed: int
    sampler: str | None
    negative_prompt: str | None
    size: tuple[int, int] | None
    reference_steps: int | None
    out: Path
    device: str
    dtype: str


class Trial:
    """The runs of one comparison, in the order in which they are made.

    The fewer-steps runs come last: what they may cost is known when the gated ones are done.

    Args:
        bench: makes the pictures.
        settings: what was asked.
        specs: the policies to compare.
    """

    def __init__(self, bench: Bench, settings: Settings, specs: Sequence[Spec]) -> None:
        self.settings = settings
        self.prompts = settings.prompts or default_prompts(settings.model)
        steps = settings.steps
        self.ungated = Method(f"ungated, {steps} steps", "ungated", steps)
        self.reference = self.ungated
        if settings.reference_steps not in (None, steps):
            more = settings.reference_steps or steps
            self.reference = Method(f"reference, {more} steps", "reference", more)
        self.gated = list({s.label: Method(s.label, "gated", steps, s) for s in specs}.values())
        self.shots: list[Shot] = []
        self.rivals: dict[str, Method] = {}
        self.interrupted = False
        self.bench = bench

    @property
    def plain(self) -> list[Method]:
        """The bare pipeline's full runs."""
        return list(dict.fromkeys([self.reference, self.ungated]))

    @property
    def images(self) -> list[tuple[str, int]]:
        """What every method draws: prompts and seeds."""
        first, count = self.settings.seed, self.settings.seeds
        return [(p, s) for p in dict.fromkeys(self.prompts) for s in range(first, first + count)]

    def run(self, advance: Callable[[str, int], None]) -> None:
        """Make every picture.

        Args:
            advance: told what comes next, and how many pictures there will be in all.
        """
        advance("warming up", 0)
        self.bench.warm_up(self.prompts, self.settings.steps)
        others = [m for m in self.plain if m != self.ungated]
        first = [self.ungated, *others, *self.gated]
        # At most one fewer-steps run for each gated method; corrected when they are known.
        self._shoot(first, advance, len(first) + 1 + len(self.gated))
        fewer = self._find_rivals()
        if fewer:
            again = [self.ungated, *fewer]
            self._shoot(again, advance, len(first) + len(again), keep_first=False)

    def _shoot(
        self,
        methods: Sequence[Method],
        advance: Callable[[str, int], None],
        most: int,
        *,
        keep_first: bool = True,
    ) -> None:
        """Draw every picture with every method; the first is the ungated run, the others' clock.

        A machine that is busy now and idle later must favour nobody: methods take turns, and each
        time is set beside the ungated run's of the same round, drawn again if need be.
        """
        for prompt, seed in self.images:
            beside = 0.0
            for method in methods:
                advance(method.label, most * len(self.images))
                shot = self.bench.shoot(method, prompt, seed)
                beside = shot.seconds if method == methods[0] else beside
                if keep_first or method != methods[0]:
                    self.shots.append(replace(shot, beside=beside))

    def _find_rivals(self) -> list[Method]:
        """For each gated method the ungated run with the most steps at no higher cost."""
        made: dict[int, Method] = {self.ungated.steps: self.ungated}
        for method in self.gated:
            cost = mean_cost(self.shots, method)
            steps = cost and steps_within(cost, self.bench.ungated, method.steps)
            if steps:
                made.setdefault(steps, Method(f"fewer steps: {steps}", "fewer steps", steps))
                self.rivals[method.label] = made[steps]
        return [m for m in made.values() if m.kind == "fewer steps"]

    @property
    def groups(self) -> list[Group]:
        """The methods, by cost."""
        return arrange(self.plain, self.gated, self.rivals)

    @property
    def failures(self) -> list[Shot]:
        """Runs that made no picture."""
        return [s for s in self.shots if s.error is not None]
