"""User code, type-checked by `make lint`: what a user writes must pass mypy --strict."""

from __future__ import annotations

import torch

import tgate_sampling as tg


@tg.policy
def second_half(step: tg.StepContext) -> bool:
    return step.progress >= 0.5


@tg.policy(name="noisy", gates=("guidance",), signals=("cross",))
def by_noise(step: tg.StepContext, signals: tg.Signals) -> tg.Decision:
    closed = step.sigma is not None and step.sigma < 1.0 and len(signals) > 0
    return tg.Decision(frozenset({"guidance"}) if closed else frozenset())


class Mine(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index > 3


def use(unet: torch.nn.Module, timesteps: torch.Tensor) -> tg.Report:
    with tg.gate(unet, second_half, layout="uncond_first", compose=["deepcache"]) as gating:
        for _ in gating.steps(timesteps):
            pass
    attached: tg.Gating = tg.attach(unet, Mine(), refresh=2)
    attached.detach()
    speedup: float = gating.report.macs.speedup if gating.report.macs else 1.0
    assert speedup >= 1.0
    return gating.report
