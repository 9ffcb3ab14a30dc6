"""A backbone of two small blocks in plain torch, and its adapter: for tests without diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tgate_sampling.adapter import Adapter, Site

#: Width of the tokens inside, of the text, and channels of the latents.
WIDTH, TEXT, CHANNELS = 8, 6, 4


@dataclass
class FakeOutput:
    """What `FakeBackbone` returns unless told otherwise."""

    sample: torch.Tensor


class FakeAttention(nn.Module):
    """Attention with one head."""

    def __init__(self, context: int) -> None:
        super().__init__()
        self.to_q, self.to_out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.to_k, self.to_v = nn.Linear(context, WIDTH), nn.Linear(context, WIDTH)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        read = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(read), self.to_v(read)  # (R, tokens, WIDTH)
        out: torch.Tensor = self.to_out(functional.scaled_dot_product_attention(q, k, v))
        return out


class FakeBlock(nn.Module):
    """Self-attention, then cross-attention, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = FakeAttention(WIDTH), FakeAttention(TEXT)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(x)
        out: torch.Tensor = x + self.attn2(x, text)
        return out


class FakeBackbone(nn.Module):
    """Latents in, latents out, in a fraction of a millisecond.

    The `shallow` block always runs; the `deep` one is what the block gate may leave out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.conv_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.time = nn.Linear(2, WIDTH)
        self.shallow, self.deep = FakeBlock(), FakeBlock()

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool = True,
    ) -> Any:
        """Predict.

        Args:
            sample: (R, CHANNELS, H, W) noisy latents.
            timestep: one for all rows, or (R,).
            encoder_hidden_states: (R, tokens, TEXT).
            return_dict: `FakeOutput` rather than a tuple.
        """
        angle = torch.as_tensor(timestep, device=sample.device).reshape(-1, 1) / 1000  # (1 or R, 1)
        waves = torch.cat([angle.sin(), angle.cos()], 1).to(sample.dtype)
        x = self.conv_in(sample.flatten(2).mT) + self.time(waves)[:, None]  # (R, H W, WIDTH)
        x = self.shallow(x, encoder_hidden_states)
        x = x + self.deep(x, encoder_hidden_states)
        out = self.conv_out(x).mT.reshape(sample.shape)
        return FakeOutput(out) if return_dict else (out,)


def fake_backbone(*, seed: int = 0) -> FakeBackbone:
    """A `FakeBackbone` with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FakeBackbone().eval()


class FakeAdapter(Adapter):
    """The adapter of `FakeBackbone`; it has a branch for the block gate."""

    name = "fake"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        kinds = {"attn1": "self", "attn2": "cross"}
        return [
            Site(name, kinds[name.rpartition(".")[2]], module)
            for name, module in backbone.named_modules()
            if isinstance(module, FakeAttention)
        ]

    def branches(self, backbone: nn.Module) -> int:
        return 1

    def blocks(self, backbone: nn.Module, branch: int) -> Sequence[Site]:
        return [Site("deep", "block", backbone.get_submodule("deep"))]

    def example_inputs(
        self,
        backbone: nn.Module,
        *,
        rows: int,
        height: int | None = None,
        width: int | None = None,
        tokens: int = 77,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        like = next(backbone.parameters())
        sample = like.new_empty(rows, CHANNELS, height or 4, width or 4)
        text = like.new_empty(rows, tokens, TEXT)
        return (sample, like.new_empty((), dtype=torch.int64)), {"encoder_hidden_states": text}
