"""A shadow of a gated run: it sees what every site really computed, and for which rows.

Nothing here reads what the library believes about rows. A row is known by the text that travels
with it, an output by the forward hook that saw it made, a run by the test that started it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import tgate_sampling as tg
from tgate_sampling.guidance import ESTIMATORS
from tgate_sampling.layout import tensors_in
from tgate_sampling.testing.tiny import TEXT_DIM

#: A row: its prompt's number, above 0 for cond, below for uncond.
Label = int


def marked_texts(prompts: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, uncond) embeddings whose first number is the row's label."""
    made = torch.Generator().manual_seed(seed)
    cond, uncond = torch.randn(2, prompts, 7, TEXT_DIM, generator=made)
    numbers = torch.arange(1.0, prompts + 1)
    cond[:, 0, 0], uncond[:, 0, 0] = numbers, -numbers
    return cond, uncond


@dataclass
class Made:
    """One output of one site, a copy, with the labels of its rows."""

    labels: list[Label]
    tensors: list[torch.Tensor]

    def row(self, label: Label) -> list[torch.Tensor]:
        place = self.labels.index(label)
        return [t[place] for t in self.tensors]


class Shadow:
    """Watches one gating; `reads` counts the kept values it has checked.

    Args:
        gating: attached.
        unet: its backbone.
    """

    def __init__(self, gating: tg.Gating, unet: Any) -> None:
        self._gating, self._unet = gating, unet
        self._made: dict[str, list[Made]] = {}
        self._looks: list[torch.Tensor] = []  # cond - uncond of complete evaluations
        self._labels: list[Label] = []
        self.reads = 0
        self._hooks = [unet.register_forward_pre_hook(self._before, with_kwargs=True)]
        self._hooks.append(unet.register_forward_hook(self._after))
        self.sites = [(s.name, s.module) for g in gating._groups.values() for s in g.sites]
        for name, module in self.sites:
            self._hooks.append(module.register_forward_hook(self._note(name)))

    def __enter__(self) -> Shadow:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def holding(self) -> list[str]:
        """Sites that hold a tensor now."""
        return [name for name, site in self.sites if site.__dict__.get("_tgate_kept") is not None]

    @contextmanager
    def run(self) -> Iterator[None]:
        """A sampling run: what was made before it must not be read in it."""
        self._made.clear()
        self._looks.clear()
        yield

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        """A call begins, on the rows that really run."""
        self._labels = [round(x) for x in kwargs["encoder_hidden_states"][:, 0, 0].tolist()]
        assert len(args[0]) == len(self._labels)
        for name, site in self.sites:
            if site._tgate_mode == "reuse":
                self._check_read(name, site._tgate_kept)
        if all(x > 0 for x in self._labels):
            self._check_looks()

    def _check_read(self, name: str, kept: Any) -> None:
        """What a site is about to return is its newest output for these very rows, in this run."""
        held = tensors_in(kept)
        assert all(len(t) == len(self._labels) for t in held)
        for place, label in enumerate(self._labels):
            newest = next(m for m in reversed(self._made[name]) if label in m.labels)
            truths = [newest.row(label)]
            if self._gating.filling.merge == "mean" and -label in newest.labels:
                both = zip(newest.row(label), newest.row(-label), strict=True)
                truths.append([(a + b) / 2 for a, b in both])
            row = [t[place] for t in held]
            assert any(all(map(torch.equal, row, truth)) for truth in truths)
            self.reads += 1

    def _check_looks(self) -> None:
        """Guidance is estimated from the newest complete evaluations of this run."""
        run: Any = self._gating._run
        if run is None or not self._looks or not run.cache.slots:
            return
        estimator = ESTIMATORS[run.step.decision.estimator or self._gating.filling.estimator]
        kept = [look.delta for look in run.cache.slots[0].looks["uncond"]][-estimator.memory or 9 :]
        for found, truth in zip(reversed(kept), reversed(self._looks), strict=False):
            assert torch.equal(found, truth)
            self.reads += 1

    def _note(self, name: str) -> Any:
        def note(module: Any, args: Any, result: Any) -> None:
            made = Made(list(self._labels), [t.clone() for t in tensors_in(result)])
            self._made.setdefault(name, []).append(made)

        return note

    def _after(self, module: Any, args: Any, result: Any) -> None:
        output = result[0] if isinstance(result, tuple) else result.sample
        if any(x < 0 for x in self._labels) and any(x > 0 for x in self._labels):
            uncond, cond = output.chunk(2)
            self._looks.append(cond - uncond)
