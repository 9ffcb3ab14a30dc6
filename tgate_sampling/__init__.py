"""A step-aware gating layer between any diffusion sampler and any backbone.

Gate a diffusers pipeline in one line; leaving the block leaves the model as it was::

    import tgate_sampling as tg

    with tg.gate(pipe, "fixed_step", gate_step=10) as gating:
        images = pipe("a large apple on a blue background", num_inference_steps=25).images
    print(gating.report)

A policy of one's own is a function of the step::

    @tg.policy
    def second_half(step: tg.StepContext) -> bool:
        return step.progress >= 0.5

and a k-diffusion sampler is wrapped, not copied::

    sample = tg.wrap_sampler(K.sampling.sample_dpmpp_2m, second_half, backbone=unet)
    x = sample(denoiser, x, sigmas)
    print(sample.report)
"""

from tgate_sampling.decision import Decision
from tgate_sampling.denoiser import UNetDenoiser
from tgate_sampling.errors import TGateError
from tgate_sampling.explain import explain
from tgate_sampling.gating import Gating, attach, gate
from tgate_sampling.hookspecs import hookimpl
from tgate_sampling.policy import Policy, get_policy, policies, policy
from tgate_sampling.prediction import Prediction
from tgate_sampling.report import Report
from tgate_sampling.sampling import wrap_sampler
from tgate_sampling.sampling import wrap_sampler as gated
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext

__all__ = [
    "Decision",
    "Gating",
    "Policy",
    "Prediction",
    "Report",
    "Signals",
    "StepContext",
    "TGateError",
    "UNetDenoiser",
    "attach",
    "explain",
    "gate",
    "gated",
    "get_policy",
    "hookimpl",
    "policies",
    "policy",
    "wrap_sampler",
]
