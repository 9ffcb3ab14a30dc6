"""diffusers' UNet: its sites are found, and what users put into it stays in use."""

from __future__ import annotations

from collections import Counter
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_adapters._sites import site_kind
from tgate_adapters.diffusers_unet import UNetAdapter
from tgate_sampling.testing import tiny_unet, unet_inputs

newer = load_helper("newer.py")

TIMES = [901, 601, 301, 1]
GATE = 2


def kinds(unet: Any) -> dict[str, str]:
    return {s.name: s.kind for s in UNetAdapter().sites(unet)}


def test_every_transformer_block_has_a_self_and_a_cross_site() -> None:
    """attn1 and attn2 of each, by their stable names, in order."""
    assert list(kinds(tiny_unet()).items()) == [
        (f"{place}.transformer_blocks.0.attn{n}", kind)
        for place in (
            "down_blocks.0.attentions.0",
            "up_blocks.1.attentions.0",
            "up_blocks.1.attentions.1",
            "mid_block.attentions.0",
        )
        for n, kind in ((1, "self"), (2, "cross"))
    ]


def test_sd15_has_sixteen_of_each() -> None:
    """The full public configuration, without weights."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    assert Counter(kinds(unet).values()) == {"cross": 16, "self": 16}


def test_kinds_are_what_attention_reads_and_not_its_name() -> None:
    """With only_cross_attention attn1 reads the text too; joint attention is no site."""
    both = kinds(tiny_unet(only_cross_attention=(True, True)))
    assert {k for n, k in both.items() if "mid" not in n} == {"cross"}
    block = diffusers.models.attention.BasicTransformerBlock
    twice = block(8, 2, 4, cross_attention_dim=None, double_self_attention=True)
    assert site_kind("x.attn2", twice.attn2) == "self"
    joint = diffusers.models.attention_processor.Attention(8, added_kv_proj_dim=8)
    assert site_kind("x.attn2", joint) is None
    assert site_kind("x.attention", twice.attn2) is None


class Counting(AttnProcessor):
    """A custom attention processor: not the default one, and it changes the result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.calls += 1
        out: torch.Tensor = super().__call__(*args, **kwargs)
        return out * 1.1


def install(unet: Any) -> dict[str, Counting]:
    processors = {name: Counting() for name in unet.attn_processors}
    unet.set_attn_processor(dict(processors))
    return processors


@pytest.mark.parametrize("when", ["before", "after"])
def test_custom_processors_are_still_called(kit: Any, when: str) -> None:
    """Set before or after attaching: called wherever attention is computed, and only there; their
    output is what is kept."""
    unet = tiny_unet()
    if when == "before":
        processors = install(unet)
    with tg.gate(unet, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
        if when == "after":
            processors = install(unet)
        out = kit.walk(unet, TIMES, gating=gating)
    calls = {name: p.calls for name, p in processors.items()}
    assert {n: c for n, c in calls.items() if "attn1" in n} == dict.fromkeys(
        [n for n in calls if "attn1" in n], len(TIMES)
    )
    assert {c for n, c in calls.items() if "attn2" in n} == {GATE}
    plain = tiny_unet()
    with tg.gate(plain, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
        assert not torch.equal(out, kit.walk(plain, TIMES, gating=gating))
    assert all(type(p) is Counting for p in unet.attn_processors.values())


def test_hooks_of_others_on_a_site_are_still_called(kit: Any) -> None:
    """A forward hook that changes a site's output: what is kept is the changed one."""
    results = []
    for policy in ("never", "fixed_step"):
        unet = tiny_unet()
        seen: list[torch.Size] = []
        site = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")
        site.register_forward_hook(
            lambda m, a, out, seen=seen: (seen.append(out.shape), out * 2)[1]
        )
        options = {"gate_step": 3, "gates": ("cross",)} if policy == "fixed_step" else {}
        with tg.gate(unet, policy, layout="uncond_first", **options) as gating:
            results.append(kit.walk(unet, TIMES[:3], gating=gating))
            assert len(seen) == 3
            if options:
                kit.walk(unet, TIMES, gating=gating)
                assert len(seen) == 3 + 3
    assert torch.equal(*results)


def test_a_processor_may_be_any_kernel(kit: Any) -> None:
    """The fused kernel and the explicit products give the same gated result to rounding."""
    results = []
    for processor in (AttnProcessor(), AttnProcessor2_0()):
        unet = tiny_unet()
        unet.set_attn_processor(processor)
        with tg.gate(unet, "fixed_step", gate_step=GATE, layout="uncond_first") as gating:
            results.append(kit.walk(unet, TIMES, gating=gating))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("gates", [("guidance",), ("cross",), ("guidance", "cross", "self")])
@pytest.mark.parametrize("return_dict", [True, False, None], ids=["object", "tuple", "default"])
def test_the_output_keeps_its_type(return_dict: bool | None, gates: tuple[str, ...]) -> None:
    """`.sample`, or a tuple, with all rows, open and closed."""
    unet = tiny_unet()
    more = {} if return_dict is None else {"return_dict": return_dict}
    expected = type(unet(**unet_inputs(), timestep=1, **more))
    with tg.gate(unet, "fixed_step", gate_step=1, gates=gates, layout="uncond_first") as gating:
        for t in gating.steps(TIMES):
            with torch.no_grad():
                out = unet(**unet_inputs(), timestep=t, **more)
            assert type(out) is expected
            assert (out[0] if return_dict is False else out.sample).shape == (2, 4, 8, 8)


ROWS = 4
GENERATOR = torch.Generator().manual_seed(3)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


#: Inputs beyond sample, timestep and text, each with the configuration that reads it.
TRAVELLERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "timesteps by row": ({}, {"timestep": torch.tensor([901, 901, 901, 901])}),
    "masks": ({}, {"encoder_attention_mask": torch.tensor([[1] * 4 + [0] * 3] * 4)}),
    "class labels": ({"num_class_embeds": 5}, {"class_labels": torch.tensor([0, 1, 2, 3])}),
    "guidance embedding": ({"time_cond_proj_dim": 6}, {"timestep_cond": random(ROWS, 6)}),
    "pooled text and time ids": (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 10 + 6 * 4,
        },
        {"added_cond_kwargs": {"text_embeds": random(ROWS, 10), "time_ids": random(ROWS, 6)}},
    ),
    "controlnet residuals": (
        {},
        {
            "down_block_additional_residuals": (
                random(ROWS, 8, 8, 8),
                random(ROWS, 8, 8, 8),
                random(ROWS, 8, 4, 4),
                random(ROWS, 16, 4, 4),
            ),
            "mid_block_additional_residual": random(ROWS, 16, 4, 4),
        },
    ),
    "a scale of no rows": ({}, {"cross_attention_kwargs": {"scale": 1.0}}),
}


def cut(value: Any) -> Any:
    """The cond rows, by hand."""
    if isinstance(value, torch.Tensor):
        return value[ROWS // 2 :]
    if isinstance(value, dict):
        return {k: cut(v) for k, v in value.items()}
    return tuple(cut(v) for v in value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("case", sorted(TRAVELLERS))
def test_all_inputs_travel_with_their_rows(case: str) -> None:
    """With guidance closed, the cond half is bitwise a bare call on the cond rows alone."""
    config, more = TRAVELLERS[case]
    unet = tiny_unet(**config)
    inputs = {"timestep": torch.tensor(901), **unet_inputs(rows=ROWS), **more}
    alone = {k: cut(v) if k != "timestep" or v.ndim else v for k, v in inputs.items()}
    with torch.no_grad():
        expected = unet(**alone).sample
    options = {"gate_step": 1, "gates": ("guidance",), "estimator": "none"}
    with tg.gate(unet, "fixed_step", layout="uncond_first", **options) as gating:
        for _ in gating.steps([1, 0]):
            with torch.no_grad():
                out = unet(**inputs).sample
    assert torch.equal(out, torch.cat([expected, expected]))


def test_timesteps_stay_where_the_caller_put_them() -> None:
    """Positional arguments stay positional: other wrappers read them there."""
    unet = tiny_unet()
    seen: list[tuple[int, list[str]]] = []
    forward = unet.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append((len(args), sorted(kwargs)))
        return forward(*args, **kwargs)

    unet.forward = spy
    inputs = unet_inputs()
    with tg.gate(unet, "fixed_step", gate_step=1, layout="uncond_first") as gating:
        for t in gating.steps(TIMES):
            with torch.no_grad():
                unet(inputs["sample"], t, inputs["encoder_hidden_states"], return_dict=False)
    assert seen == [(3, ["return_dict"])] * len(TIMES)


def call_perturbed(pipe: Any, embeds: torch.Tensor) -> torch.Tensor:
    scale = {"pag_scale": 2.0} if "PAG" in type(pipe).__name__ else {"sag_scale": 0.75}
    latents: torch.Tensor = pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=torch.zeros_like(embeds),
        height=16,
        width=16,
        **scale,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    return latents


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize(
    ("name", "config", "call"),
    [
        pytest.param(
            "StableDiffusionPAGPipeline",
            {},
            call_perturbed,
            marks=newer.needs_diffusers("0.30", "perturbed-attention guidance"),
        ),
        ("StableDiffusionSAGPipeline", {"sample_size": 16}, call_perturbed),
    ],
)
def test_pipelines_that_combine_more_keep_guidance(
    kit: Any, name: str, config: dict[str, Any], call: Any, prompts: int
) -> None:
    """A perturbed branch, or attention maps of both: the image is bitwise the bare one, with an
    event that says why."""
    unet = tiny_unet(**config)
    components = kit.make_pipe(unet).components
    more = {"pag_applied_layers": ["mid"]} if "PAG" in name else {}
    pipe = getattr(diffusers, name)(**components, requires_safety_checker=False, **more)
    pipe.set_progress_bar_config(disable=True)
    embeds = torch.randn(prompts, 7, 16, generator=torch.Generator().manual_seed(1))
    bare = call(pipe, embeds)
    with tg.gate(pipe, "fixed_step", gate_step=2, gates=("guidance",)) as gating:
        gated = call(pipe, embeds)
    assert torch.equal(gated, bare)
    assert len(gating.report.events) == 1
    assert "guidance stays open" in gating.report.events[0].message
    assert gating.report.macs.saved == {}
