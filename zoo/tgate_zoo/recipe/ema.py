"""A running average of a model's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Average:
    """Exponential moving average of the parameters of a module.

    The decay grows as (1 + step) / (10 + step) up to its limit, so that a short training is not
    dominated by the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present weights."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = dict(module.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [current[name] for name in self.values], 1 - decay
        )
        self.steps += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved average; every name has to be one of the module's."""
        self.steps = int(state["steps"])
        for name, value in state["values"].items():
            self.values[name].copy_(value)


def load_average(module: nn.Module, state: dict[str, Any]) -> None:
    """Overwrite the module's weights with a saved average (`Average.state_dict`)."""
    average = Average(module, decay=0.0)
    average.load_state_dict(state)
    average.copy_to(module)
