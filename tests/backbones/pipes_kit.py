"""What the tables of tiny pipelines share: row type, seeded modules and inputs, a recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

#: Width and length of the text embeddings most pipelines are given.
TEXT_DIM = 16
TOKENS = 7

#: Guidance scales of a guided and an unguided call; the embedded kind reads them as numbers.
GUIDED = 4.0
UNGUIDED = 1.0

#: Names under which a backbone takes its latents, in the order they are looked for.
SAMPLES = ("sample", "hidden_states", "x")
TIMES = ("timestep", "timesteps", "t")

#: Backbone rows a call carries per image, by layout.
ROWS = {
    "uncond_first": 2,
    "cond_first": 2,
    "separate": 1,
    "single": 1,
    "three": 3,
    "pag": 3,
}


@dataclass(frozen=True)
class TinyPipe:
    """A pipeline of milliseconds a step.

    Args:
        name: What tests are parametrised with.
        build: Makes a fresh pipeline with tiny seeded random weights, its progress bar disabled.
        call: `call(pipe, steps=4, guidance=True, batch=1, **extra)` gives the final latents;
            `extra` goes to the pipeline and overrules what the row says.
        backbone: The denoiser's attribute name.
        layout: How the branches of a guided call lie in the backbone's calls: `uncond_first`,
            `cond_first`, `separate` (one call a branch, cond first), `single` (guidance is an
            embedding), `three` (text, image, uncond, as InstructPix2Pix batches them) or `pag`
            (uncond, cond, cond with perturbed attention).
        calls: Backbone calls a guided step makes.
        rows: Backbone rows per image of each of these calls; the layout's own where empty.
        experts: Further denoisers that share the run's steps with `backbone`.
        prelude: Backbone calls a step that come before the guided loop, as an inversion makes.
        needs: A package without which it cannot be built.
    """

    name: str
    build: Callable[[], Any]
    call: Callable[..., torch.Tensor]
    backbone: str = "unet"
    layout: str = "uncond_first"
    calls: int = 1
    rows: tuple[int, ...] = ()
    experts: tuple[str, ...] = ()
    prelude: int = 0
    needs: str = ""

    def denoiser(self, pipe: Any) -> Any:
        """The pipeline's backbone."""
        return getattr(pipe, self.backbone)

    def rows_a_step(self, batch: int = 1) -> list[int]:
        """Leading dimensions of the samples a guided step hands to the backbone."""
        return [batch * n for n in self.rows or (ROWS[self.layout],) * self.calls]


class Draw:
    """Seeded normal tensors, one after the other."""

    def __init__(self, seed: int = 5) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)


def seeded(make: Callable[..., Any], *, seed: int = 0, **config: Any) -> Any:
    """A model with seeded random weights in which the prompt is heard."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make(**config).eval()
        for parameter in model.parameters():
            # Zero-initialised gates and last layers would make every prompt the same.
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.2)
        for module in model.modules():
            # torch's own initialisation shrinks a signal by this factor at every layer.
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(3**0.5)
    return model


def quiet(pipe: Any) -> Any:
    """The pipeline, without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def assembled(kind: str, transformer: Any, scheduler: Any = None, **parts: Any) -> Any:
    """A pipeline around a transformer, by its class's name; text encoder and VAE left out.

    Args:
        kind: Name of the pipeline's class.
        transformer: The denoiser.
        scheduler: Flow matching where None, as most of these pipelines ship it.
        parts: Further components, or other ones.
    """
    return quiet(
        getattr(diffusers, kind)(
            **{
                "tokenizer": None,
                "text_encoder": None,
                "vae": None,
                "transformer": transformer,
                "scheduler": scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            }
            | parts
        )
    )


def caller(
    inputs: Callable[[Draw, int], dict[str, Any]],
    *,
    scale: str = "guidance_scale",
    unguided: float = UNGUIDED,
    stretch: int = 1,
    **fixed: Any,
) -> Callable[..., Any]:
    """A row's `call`: seeded inputs, guidance by the pipeline's own keyword.

    Args:
        inputs: The tensors of a call for a batch, drawn from the first argument.
        scale: The keyword that says how strong guidance is.
        unguided: Its value in a call without guidance.
        stretch: `num_inference_steps` of a call with one step, where `strength` skips some.
        fixed: Further keywords of the pipeline's call.
    """

    def call(
        pipe: Any, steps: int = 4, guidance: bool = True, batch: int = 1, **extra: Any
    ) -> torch.Tensor:
        given = {
            "num_inference_steps": stretch * steps,
            scale: GUIDED if guidance else unguided,
            "generator": torch.Generator().manual_seed(7),
            "output_type": "latent",
        }
        given |= fixed | inputs(Draw(), batch) | extra
        return pipe(**given)[0]

    return call


def texts(draw: Draw, batch: int, *, tokens: int = TOKENS, width: int = TEXT_DIM) -> dict[str, Any]:
    """Embeddings of a prompt and of a negative prompt."""
    return {
        "prompt_embeds": draw(batch, tokens, width),
        "negative_prompt_embeds": draw(batch, tokens, width),
    }


def masks(batch: int, *, tokens: int = TOKENS) -> dict[str, Any]:
    """Attention masks of both prompts: every prompt is padded to another length."""
    cond = torch.ones(batch, tokens, dtype=torch.long)
    for row in range(batch):
        cond[row, tokens - 1 - row % 3 :] = 0
    uncond = torch.zeros_like(cond)
    uncond[:, :3] = 1
    return {"prompt_attention_mask": cond, "negative_prompt_attention_mask": uncond}


@dataclass(frozen=True)
class Call:
    """One backbone call: its rows, and how its timestep relates to the scheduler's.

    Args:
        rows: Leading dimension of the sample (the length of a list of samples).
        timestep: The timestep's first value.
        offset: Index of the timestep in the tensor of timesteps it is a view of, None where it is
            a tensor of its own.
        own: Whether that tensor is `scheduler.timesteps` itself; a copy of an earlier
            `set_timesteps` is not.
    """

    rows: int
    timestep: float
    offset: int | None
    own: bool


def seen(times: torch.Tensor, sample: Any, time: Any) -> Call:
    """A call's record, from `scheduler.timesteps` and what the backbone is given."""
    own = offset = None
    if torch.is_tensor(time):
        own = time.untyped_storage().data_ptr() == times.untyped_storage().data_ptr()
        base = time._base
        if own or (base is not None and torch.equal(base.flatten(), times)):
            offset = time.storage_offset()
    first = torch.as_tensor(time).flatten()[0]
    return Call(rows=len(sample), timestep=float(first), offset=offset, own=bool(own))


@contextmanager
def recorded(pipe: Any, *backbones: str) -> Iterator[list[Call]]:
    """The backbone calls made while the block runs."""
    calls: list[Call] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [kwargs[name] for name in SAMPLES if name in kwargs] or [args[0]]
        times = [kwargs[name] for name in TIMES if name in kwargs] or [args[1]]
        calls.append(seen(pipe.scheduler.timesteps, given[0], times[0]))

    handles = [
        getattr(pipe, name).register_forward_pre_hook(note, with_kwargs=True) for name in backbones
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
