"""Every scheduler class of diffusers: how it is tried, or why it cannot be. Data: `PLACED`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch


@dataclass(frozen=True, eq=False)
class Tried:
    """A scheduler that drives runs.

    Args:
        home: the pipeline, of `scheduler_homes`.
        settings: its own, beside those of Stable Diffusion.
        least: the smallest number of steps it can do.
        late: whether img2img can start it in the middle; some cannot add noise.
        thousand: whether its timesteps are out of a thousand, as those are that SDXL cuts by.
        given: schedules of the user's own that it takes, as keywords of the pipeline.
        subclass: what takes its place, made from its class.
    """

    home: str = "sd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    least: int = 1
    late: bool = True
    thousand: bool = True
    given: tuple[Mapping[str, Any], ...] = ()
    subclass: Callable[[type[Any]], type[Any]] = lambda kind: kind


@dataclass(frozen=True, eq=False)
class Refused:
    """A scheduler that no text-to-image pipeline with a gated backbone can use.

    Args:
        why: what it is for.
        error: what a pipeline says when given it.
        says: with which words.
        home: the pipeline.
        settings: without which it cannot even be made.
    """

    why: str
    error: type[Exception]
    says: str
    home: str = "sd"
    settings: Mapping[str, Any] = field(default_factory=dict)


def sd(
    *given: Mapping[str, Any], late: bool = True, thousand: bool = True, **settings: Any
) -> Tried:
    """In Stable Diffusion, as a drop-in."""
    return Tried("sd", settings, late=late, thousand=thousand, given=given)


def flow(*given: Mapping[str, Any], least: int = 1, **settings: Any) -> Tried:
    """In Sana, whose backbone is given no view of the scheduler's timesteps."""
    return Tried("sana", settings, least, late=False, given=given)


def widened(kind: type[Any]) -> type[Any]:
    """Pi-Flow wants several predictions a sample, which only Kandinsky 6 makes: one, repeated."""

    class Widened(kind):  # type: ignore[misc]
        def step(self, model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return super().step(torch.cat([model_output] * self.n_grid, -1), *args, **kwargs)

    return Widened


TIMES = {"timesteps": [981, 803, 601, 399, 202, 3]}
SIGMAS = {"sigmas": [1.0, 0.8, 0.5, 0.3, 0.1]}
FLOW_TIMES = {"timesteps": [1000 * sigma for sigma in SIGMAS["sigmas"]]}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
#: Helios works in stages of growing resolution; with one it is an ordinary flow.
ONE_STAGE = {"stages": 1, "stage_range": [0, 1]}
NO_NOISE = "has no attribute 'init_noise_sigma'"

PLACED: dict[str, tuple[Tried | Refused, ...]] = {
    "AmusedScheduler": (
        Refused(
            "unmasks tokens in a pipeline that gives its backbone no timestep",
            AttributeError,
            NO_NOISE,
            settings={"mask_token_id": 3},
        ),
    ),
    "BlockRefinementScheduler": (Refused("unmasks words", AttributeError, NO_NOISE),),
    "CMStochasticIterativeScheduler": (sd({"timesteps": [39, 25, 12, 4]}, thousand=False),),
    "CogVideoXDDIMScheduler": (sd(), Tried("cogvideox")),
    "CogVideoXDPMScheduler": (Tried("cogvideox"),),
    "ConsistencyDecoderScheduler": (
        Refused("decodes latents", ValueError, "more than 2 inference steps are not supported"),
    ),
    "CosineDPMSolverMultistepScheduler": (sd(thousand=False),),
    "DDIMInverseScheduler": (sd(late=False),),
    "DDIMParallelScheduler": (sd(),),
    "DDIMScheduler": (sd(), sd(timestep_spacing="trailing", rescale_betas_zero_snr=True)),
    "DDPMParallelScheduler": (sd(TIMES),),
    "DDPMScheduler": (sd(TIMES), sd(timestep_spacing="linspace")),
    "DDPMWuerstchenScheduler": (
        Refused("for Stable Cascade, whose backbone has no adapter", AttributeError, "'order'"),
    ),
    "DEISMultistepScheduler": (sd(), sd(use_karras_sigmas=True), flow(**FLOW)),
    "DPMSolverMultistepInverseScheduler": (sd(),),
    "DPMSolverMultistepScheduler": (
        sd(TIMES),
        sd(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
        sd(solver_order=3, euler_at_final=True, final_sigmas_type="sigma_min"),
        flow(**FLOW, flow_shift=3.0),
    ),
    "DPMSolverSDEScheduler": (sd(), sd(use_karras_sigmas=True), flow()),
    "DPMSolverSinglestepScheduler": (
        *(sd(TIMES, solver_order=order) for order in (1, 2, 3)),
        sd(solver_order=3, lower_order_final=True, use_karras_sigmas=True),
        flow(**FLOW),
    ),
    "DiscreteDDIMScheduler": (Refused("denoises words", AttributeError, NO_NOISE),),
    "EDMDPMSolverMultistepScheduler": (sd(thousand=False), sd(thousand=False, solver_order=3)),
    "EDMEulerScheduler": (sd({"sigmas": torch.tensor([0.0, 0.2, 0.6, 1.0])}, thousand=False),),
    "EntropyBoundScheduler": (Refused("unmasks words", AttributeError, NO_NOISE),),
    "EulerAncestralDiscreteScheduler": (sd(),),
    "EulerDiscreteScheduler": (
        sd(TIMES, {"sigmas": [14.6, 9.0, 4.0, 1.0, 0.1, 0.0]}),
        sd(use_karras_sigmas=True, final_sigmas_type="sigma_min"),
        sd(
            thousand=False,
            timestep_type="continuous",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
        ),
        flow(),
    ),
    "FlowMapEulerDiscreteScheduler": (flow(SIGMAS, FLOW_TIMES),),
    "FlowMatchEulerDiscreteScheduler": (
        flow(SIGMAS, FLOW_TIMES),
        flow(shift=3.0, stochastic_sampling=True),
    ),
    "FlowMatchHeunDiscreteScheduler": (flow(), flow(shift=3.0)),
    "FlowMatchLCMScheduler": (flow(SIGMAS, FLOW_TIMES),),
    "HeliosDMDScheduler": (
        Refused(
            "its step wants the noise of a stage that only HeliosPyramidPipeline keeps",
            AttributeError,
            "'NoneType' object has no attribute 'double'",
            "sana",
            ONE_STAGE,
        ),
    ),
    "HeliosScheduler": (flow(**ONE_STAGE), flow(**ONE_STAGE, scheduler_type="euler")),
    "HeunDiscreteScheduler": (sd(TIMES), sd(use_karras_sigmas=True), flow()),
    "IPNDMScheduler": (sd(late=False, thousand=False),),
    "KDPM2AncestralDiscreteScheduler": (sd(), sd(use_karras_sigmas=True), flow()),
    "KDPM2DiscreteScheduler": (sd(), sd(use_karras_sigmas=True), flow()),
    "KarrasVeScheduler": (
        Refused("unconditional, with a loop of its own", TypeError, "argument: 'sample_hat'"),
    ),
    "LCMScheduler": (
        sd({"timesteps": [999, 759, 499, 259]}, original_inference_steps=50),
        sd(original_inference_steps=1000),
    ),
    "LMSDiscreteScheduler": (sd(), sd(use_karras_sigmas=True)),
    "LTXEulerAncestralRFScheduler": (flow(SIGMAS, FLOW_TIMES),),
    "MiniMaxH3Scheduler": (flow({"sigmas": [*SIGMAS["sigmas"], 0.0]}, least=2),),
    "PNDMScheduler": (sd(skip_prk_steps=True), Tried("sd", {"skip_prk_steps": False}, least=4)),
    "PiflowScheduler": (Tried("sana", {"n_grid": 2}, subclass=widened),),
    "RFD4ProteinaScheduler": (
        Refused(
            "folds proteins",
            AttributeError,
            NO_NOISE,
            settings={"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1, "tsr_sigma": 1},
        ),
    ),
    "RePaintScheduler": (
        Refused("unconditional inpainting", TypeError, "arguments: 'original_image' and 'mask'"),
    ),
    "SASolverScheduler": (sd(), sd(predictor_order=3, corrector_order=4), flow(**FLOW)),
    "SCMScheduler": (Tried("sana-sprint", {"prediction_type": "trigflow", "sigma_data": 0.5}),),
    "ScoreSdeVeScheduler": (
        Refused("unconditional, in predictor and corrector steps", AttributeError, "'step'"),
    ),
    "ScoreSdeVpScheduler": (
        Refused("unconditional, and of no pipeline at all", AttributeError, "'step'"),
    ),
    "TCDScheduler": (sd({"timesteps": [999, 759, 499, 259]}, original_inference_steps=50),),
    "UnCLIPScheduler": (
        Tried(
            "kandinsky-prior",
            {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
            least=2,
        ),
    ),
    "UniPCMultistepScheduler": (
        sd(),
        sd(solver_order=3, use_karras_sigmas=True),
        flow({"sigmas": numpy.array(SIGMAS["sigmas"])}, **FLOW, flow_shift=3.0),
    ),
    "VQDiffusionScheduler": (Tried("vq-diffusion", {"num_vec_classes": 12}),),
}


ONE_MORE = "missing 1 required positional argument: 'num_inference_steps'"

#: Classes whose `set_timesteps` has a keyword for a schedule that no pipeline's user can give, by
#: keyword: a run that tries it, and the words in which it fails.
NEVER_GIVEN: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {
    ("HeliosScheduler", "sigmas"): (SIGMAS, ONE_MORE),
    ("PiflowScheduler", "sigmas"): (SIGMAS, "only supports its configured distilled"),
    ("PiflowScheduler", "timesteps"): (FLOW_TIMES, "only supports its configured distilled"),
    ("SCMScheduler", "timesteps"): (
        {"timesteps": [1.57, 1.0, 0.5, 0.1, 0.05, 0.0], "max_timesteps": None},
        ONE_MORE,
    ),
}
