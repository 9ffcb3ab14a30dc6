"""The models that the page of backbones counts: published configurations, as overrides of a class.

Whoever adds a row to a table of `adapters/` adds one here, and counts it:
`python docs/_generate/backbones.py --count`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a row is called whose class defaults are no published checkpoint that we know of.
DEFAULTS = "class defaults"


@dataclass(frozen=True)
class Model:
    """One row of the page.

    Args:
        backbone: the class's name.
        name: what people call the checkpoint.
        tokens: length of its text, as its pipeline pads it.
        config: what differs from the class's defaults; empty where these are the checkpoint's.
        size: height and width of the latents, where the recipe's own are not the checkpoint's.
        why: why it is not counted, or None.
    """

    backbone: str
    name: str
    tokens: int
    config: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    why: str | None = None

    @property
    def key(self) -> str:
        """Names the row in the file of counts."""
        return f"{self.backbone}: {self.name}"


SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
AUDIOLDM_2: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (128, 256, 384, 640),
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "cross_attention_dim": ((None, 768, 1024),) * 4,
}
PIXART: dict[str, Any] = {
    "sample_size": 128,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
    "use_additional_conditions": True,
}
HUNYUAN_DIT: dict[str, Any] = {
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 128,
    "hidden_size": 1408,
    "num_layers": 40,
    "mlp_ratio": 4.3637,
    "use_style_cond_and_image_meta_size": False,
}
LATTE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "num_layers": 28,
    "attention_head_dim": 72,
    "attention_bias": True,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
}
KANDINSKY_5: dict[str, Any] = {
    "in_visual_dim": 16,
    "out_visual_dim": 16,
    "model_dim": 1792,
    "ff_dim": 7168,
    "visual_cond": True,
}
WAN_SMALL = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
HIDREAM: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 16,
    "caption_channels": [4096, 4096],
    "axes_dims_rope": (64, 32, 32),
    "llama_layers": [*range(32), *[31] * 16],
}

#: Why nothing is counted.
VALUES = "asks its masks for values, and a call without weights has none"
EXPERTS = "chooses its experts by value, and a call without weights has none"
FLEX = "attends by flex_attention, which the meta device has not"
AUTOCAST = "asks for autocast on the meta device, where there is none"

UNETS = (
    Model("UNet2DConditionModel", "SD-1.5", 77, {"sample_size": 64, "cross_attention_dim": 768}),
    Model(
        "UNet2DConditionModel",
        "SD-2.1",
        77,
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
    ),
    Model("UNet2DConditionModel", "SDXL", 77, SDXL),
    Model("UNet2DConditionModel", "LCM-SDXL", 77, {**SDXL, "time_cond_proj_dim": 256}),
    Model("UNetControlNetXSModel", DEFAULTS, 77),
    Model("DreamLiteUNetModel", DEFAULTS, 200, size=(128, 128)),
    Model("AudioLDM2UNet2DConditionModel", "AudioLDM 2", 8, AUDIOLDM_2),
    Model("Kandinsky3UNet", "Kandinsky 3", 128),
    Model("UNet3DConditionModel", "ModelScope 1.7B", 77, {"sample_size": 32}),
    Model(
        "UNetMotionModel",
        "AnimateDiff, SD-1.5",
        77,
        {"sample_size": 64, "cross_attention_dim": 768},
    ),
    Model("UNetSpatioTemporalConditionModel", "SVD-XT", 1, size=(72, 128)),
    Model("I2VGenXLUNet", "I2VGen-XL", 77, size=(88, 160)),
)
DITS = (
    Model("PixArtTransformer2DModel", "PixArt-alpha", 120, PIXART),
    Model(
        "PixArtTransformer2DModel",
        "PixArt-Sigma",
        300,
        {**PIXART, "use_additional_conditions": False, "interpolation_scale": 2},
    ),
    Model("HunyuanDiT2DModel", "HunyuanDiT v1.2", 77, HUNYUAN_DIT),
    Model("SanaTransformer2DModel", "Sana 1.6B", 300),
    Model("SanaTransformer2DModel", "Sana-Sprint 1.6B", 300, {"guidance_embeds": True}),
    Model("SanaVideoTransformer3DModel", "Sana-Video 2B", 300, {"mlp_ratio": 3.0}),
    Model("WanTransformer3DModel", "Wan 2.1 1.3B", 512, WAN_SMALL),
    Model("WanTransformer3DModel", "Wan 2.1 14B", 512),
    Model("WanVACETransformer3DModel", "Wan 2.1 VACE 14B", 512),
    Model("WanAnimateTransformer3DModel", "Wan 2.2 Animate", 512, {"added_kv_proj_dim": 5120}),
    Model("ChronoEditTransformer3DModel", DEFAULTS, 512),
    Model(
        "SkyReelsV2Transformer3DModel",
        "SkyReels V2 14B",
        512,
        {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
    ),
    Model("AnyFlowTransformer3DModel", DEFAULTS, 512),
    Model("AnyFlowFARTransformer3DModel", DEFAULTS, 512, why=FLEX),
    Model("HeliosTransformer3DModel", DEFAULTS, 512, why=AUTOCAST),
    Model("LTXVideoTransformer3DModel", "LTX-Video 2B", 128),
    Model(
        "LTXVideoTransformer3DModel",
        "LTX-Video 13B",
        128,
        {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
    ),
    Model("LTX2VideoTransformer3DModel", "LTX-2", 1024),
    Model("LatteTransformer3DModel", "Latte-1", 120, LATTE),
    Model("AllegroTransformer3DModel", "Allegro", 512),
    # The mask is resized by torchvision; it is one channel of the first layer.
    Model("CosmosTransformer3DModel", "Cosmos 1.0 7B", 512, {"concat_padding_mask": False}),
    Model("Kandinsky5Transformer3DModel", "Kandinsky 5 Lite", 512, KANDINSKY_5),
    Model("Kandinsky6Transformer3DModel", DEFAULTS, 1024),
    Model("StableAudioDiTModel", "Stable Audio Open", 130),
    Model("StableAudio3DiTModel", DEFAULTS, 256),
    Model("AceStepTransformer1DModel", DEFAULTS, 256),
    Model("LongCatAudioDiTTransformer", DEFAULTS, 512),
    Model("LuminaNextDiT2DModel", "Lumina-Next T2I", 256, {"num_layers": 24, "num_kv_heads": 8}),
    Model("DiTTransformer2DModel", "DiT-XL/2 256", 1, {"out_channels": 8}),
)
MMDITS = (
    Model(
        "SD3Transformer2DModel",
        "SD3 medium",
        333,
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
    ),
    Model(
        "SD3Transformer2DModel",
        "SD3.5 large",
        333,
        {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
    ),
    Model("FluxTransformer2DModel", "FLUX.1-dev", 512, {"guidance_embeds": True}),
    Model("FluxTransformer2DModel", "FLUX.1-schnell", 256),
    Model("Flux2Transformer2DModel", "FLUX.2-dev", 512),
    Model("Flux3Transformer2DModel", DEFAULTS, 512),
    Model("QwenImageTransformer2DModel", "Qwen-Image", 512),
    Model("ChromaTransformer2DModel", "Chroma", 512),
    Model("ZImageTransformer2DModel", "Z-Image", 512),
    Model("AuraFlowTransformer2DModel", "AuraFlow", 256),
    Model("BriaTransformer2DModel", DEFAULTS, 128),
    Model("BriaFiboTransformer2DModel", DEFAULTS, 1024),
    Model("OvisImageTransformer2DModel", "Ovis-Image", 256),
    Model("LongCatImageTransformer2DModel", DEFAULTS, 512),
    Model("NucleusMoEImageTransformer2DModel", DEFAULTS, 512, why=EXPERTS),
    Model("Krea2Transformer2DModel", DEFAULTS, 512),
    Model("CogView3PlusTransformer2DModel", "CogView3-Plus 3B", 224),
    Model(
        "CogView4Transformer2DModel",
        "CogView4 6B",
        224,
        {"num_layers": 28, "attention_head_dim": 128, "num_attention_heads": 32},
    ),
    Model("GlmImageTransformer2DModel", DEFAULTS, 256, why=VALUES),
    Model("HunyuanImageTransformer2DModel", "HunyuanImage 2.1", 1000, {"text_embed_2_dim": 1472}),
    Model("Lumina2Transformer2DModel", DEFAULTS, 256, why=VALUES),
    Model("HiDreamImageTransformer2DModel", "HiDream-I1", 128, HIDREAM, why=EXPERTS),
    Model("ErnieImageTransformer2DModel", DEFAULTS, 256, why=AUTOCAST),
    Model("PRXTransformer2DModel", "PRX 512", 256),
    Model(
        "JoyImageEditTransformer3DModel",
        "JoyImage-Edit",
        1024,
        {"hidden_size": 4096, "num_attention_heads": 32, "num_layers": 40},
    ),
    Model("CogVideoXTransformer3DModel", "CogVideoX 2B", 226),
    Model(
        "CogVideoXTransformer3DModel",
        "CogVideoX 5B",
        226,
        {
            "num_layers": 42,
            "num_attention_heads": 48,
            "use_rotary_positional_embeddings": True,
        },
    ),
    Model("HunyuanVideoTransformer3DModel", "HunyuanVideo", 256),
    Model("HunyuanVideo15Transformer3DModel", "HunyuanVideo 1.5", 1000, why=VALUES),
    Model(
        "HunyuanVideoFramepackTransformer3DModel",
        "FramePack",
        256,
        {"has_image_proj": True, "has_clean_x_embedder": True},
        why=VALUES,
    ),
    Model("MochiTransformer3DModel", "Mochi 1", 256, why=AUTOCAST),
    Model(
        "EasyAnimateTransformer3DModel",
        DEFAULTS,
        256,
        {"in_channels": 16, "patch_size": 2, "out_channels": 16},
    ),
    Model("MotifVideoTransformer3DModel", DEFAULTS, 512),
)

MODELS = (*UNETS, *DITS, *MMDITS)
