"""Stable Diffusion with more than a prompt: ControlNet, adapters, LoRA, images, PAG."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")
sd = load_helper("backbones/pipes_sd.py")

#: Width of the image embeddings an IP-Adapter is given.
IMAGE_DIM = 8


def controlnet() -> Any:
    """A ControlNet for 64x64 pixels, whose residuals are not zero."""
    return sd.sd(
        diffusers.StableDiffusionControlNetPipeline,
        controlnet=kit.seeded(
            diffusers.ControlNetModel,
            seed=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            cross_attention_dim=kit.TEXT_DIM,
            attention_head_dim=2,
            conditioning_embedding_out_channels=(4, 4, 8, 8),
        ),
    )


def t2i_adapter() -> Any:
    return sd.sd(
        diffusers.StableDiffusionAdapterPipeline,
        adapter=kit.seeded(
            diffusers.T2IAdapter,
            seed=1,
            channels=[8, 16],
            num_res_blocks=1,
            downscale_factor=8,
        ),
    )


def ip_adapter() -> Any:
    """An IP-Adapter with random weights at every cross-attention."""
    pipe, draw = sd.sd(), kit.Draw(3)
    width = kit.TEXT_DIM
    weights: dict[str, Any] = {}
    # The file format numbers all processors; only those of cross-attention have weights.
    for number, name in enumerate(pipe.unet.attn_processors):
        if "attn2" in name:
            hidden = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
            weights[f"{number}.to_k_ip.weight"] = draw(hidden, width) / width**0.5
            weights[f"{number}.to_v_ip.weight"] = draw(hidden, width) / width**0.5
    image_proj = {
        "proj.weight": draw(4 * width, IMAGE_DIM),
        "proj.bias": draw(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    pipe.unet._load_ip_adapter_weights([{"image_proj": image_proj, "ip_adapter": weights}])
    return pipe


def lora() -> Any:
    """Random low-rank updates of every attention projection, by peft."""
    import peft

    unet = sd.unet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        unet.add_adapter(
            peft.LoraConfig(
                r=2,
                target_modules=["to_q", "to_k", "to_v", "to_out.0"],
                init_lora_weights=False,
            )
        )
    return sd.sd(unet=unet.eval())


def pag() -> Any:
    """Perturbed attention in the middle block: a third row a step."""
    return sd.sd(diffusers.StableDiffusionPAGPipeline, pag_applied_layers="mid")


def img2img() -> Any:
    return sd.sd(diffusers.StableDiffusionImg2ImgPipeline)


def img2img_xl() -> Any:
    return sd.sdxl(diffusers.StableDiffusionXLImg2ImgPipeline, vae=sd.vae())


def inpaint(channels: int = 4) -> Any:
    """Nine channels see the mask and the masked image; four only keep what lies outside it."""
    return sd.sd(
        diffusers.StableDiffusionInpaintPipeline,
        unet=sd.unet(in_channels=channels),
        vae=sd.vae(),
    )


def pix2pix() -> Any:
    """Guided by a text and by an image: three branches, and the image's latents as channels."""
    return sd.sd(
        diffusers.StableDiffusionInstructPix2PixPipeline,
        unet=sd.unet(in_channels=8),
        vae=sd.vae(),
    )


def ledits() -> Any:
    """LEdits++ with a CLIP that knows two words; it reads the attention maps of the third level."""
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        model_max_length=kit.TOKENS,
    )
    text_encoder = kit.seeded(
        transformers.CLIPTextModel,
        config=transformers.CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=kit.TEXT_DIM,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=kit.TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        ),
    )
    return sd.sd(
        diffusers.LEditsPPPipelineStableDiffusion,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=sd.unet(
            sample_size=16,
            block_out_channels=(8, 16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        vae=sd.vae(sample_size=32),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            **sd.TRAINED, algorithm_type="sde-dpmsolver++", solver_order=2
        ),
    )


def controlled(draw: Any, batch: int) -> dict[str, Any]:
    return kit.texts(draw, batch) | {"image": draw(batch, 3, 64, 64).sigmoid()}


def latent_image(draw: Any, batch: int) -> dict[str, Any]:
    """The image as latents, which needs no autoencoder."""
    return kit.texts(draw, batch) | {"image": draw(batch, 4, 8, 8)}


def latent_image_xl(draw: Any, batch: int) -> dict[str, Any]:
    return sd.pooled(draw, batch) | {"image": draw(batch, 4, 8, 8)}


def masked_image(draw: Any, batch: int) -> dict[str, Any]:
    """A picture of 16x16 pixels in [0, 1], the left half of which is to be repainted."""
    mask = torch.zeros(batch, 1, 16, 16)
    mask[..., :8] = 1
    return kit.texts(draw, batch) | {
        "image": draw(batch, 3, 16, 16).sigmoid(),
        "mask_image": mask,
    }


prompted = kit.caller(kit.texts)


def ip_call(
    pipe: Any, steps: int = 4, guidance: bool = True, batch: int = 1, **extra: Any
) -> torch.Tensor:
    """The image's embeddings come with their negative where the call is guided."""
    embeds = kit.Draw(9)(2 * batch, 1, IMAGE_DIM)
    given = {"ip_adapter_image_embeds": [embeds if guidance else embeds[batch:]]}
    return prompted(pipe, steps, guidance, batch, **given | extra)


def ledits_call(
    pipe: Any, steps: int = 4, guidance: bool = True, batch: int = 1, **extra: Any
) -> torch.Tensor:
    """Inverts pictures of 32x32 pixels, unguided, then edits them, or only reconstructs them."""
    pipe.invert(
        image=kit.Draw()(batch, 3, 32, 32).sigmoid(),
        num_inversion_steps=steps,
        skip=0.1,
        generator=torch.Generator().manual_seed(7),
    )
    edits = {"editing_prompt": ["a b"], "edit_guidance_scale": kit.GUIDED} if guidance else {}
    return pipe(output_type="latent", **edits | extra)[0]


def pag_call(
    pipe: Any, steps: int = 4, guidance: bool = True, batch: int = 1, **extra: Any
) -> torch.Tensor:
    """Both kinds of guidance, or none."""
    return prompted(pipe, steps, guidance, batch, **{"pag_scale": 3.0 if guidance else 0.0} | extra)


HALF: dict[str, Any] = {"strength": 0.5, "stretch": 2}

ROWS = (
    kit.TinyPipe("controlnet", controlnet, kit.caller(controlled)),
    kit.TinyPipe("controlnet-guess", controlnet, kit.caller(controlled, guess_mode=True)),
    kit.TinyPipe("t2i-adapter", t2i_adapter, kit.caller(controlled)),
    kit.TinyPipe("ip-adapter", ip_adapter, ip_call),
    kit.TinyPipe("lora", lora, prompted, needs="peft"),
    kit.TinyPipe("pag", pag, pag_call, layout="pag"),
    kit.TinyPipe("img2img", img2img, kit.caller(latent_image, **HALF)),
    kit.TinyPipe("sdxl-img2img", img2img_xl, kit.caller(latent_image_xl, **HALF)),
    kit.TinyPipe("inpaint", inpaint, kit.caller(masked_image, height=16, width=16)),
    kit.TinyPipe("inpaint-9", lambda: inpaint(9), kit.caller(masked_image, height=16, width=16)),
    kit.TinyPipe("pix2pix", pix2pix, kit.caller(latent_image), layout="three"),
    kit.TinyPipe("ledits", ledits, ledits_call, prelude=1),
)
