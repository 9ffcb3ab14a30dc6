"""`wrap_sampler`: any k-diffusion sampler, gated; same call signature out as in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.backbones import ANY, adapter_for, known, unwrap
from tgate_sampling.errors import NoRunError, OptionError, UnsupportedBackboneError
from tgate_sampling.gating import active_gating, gate
from tgate_sampling.policy import RESERVED, Policy, get_policy
from tgate_sampling.report import Report


class GatedSampler:
    """A sampler whose model calls are gated; call it as the sampler itself.

    Made by `wrap_sampler`. `functools.wraps` keeps the signature, which front ends read to find
    out which arguments a sampler takes.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        policy: Policy | Callable[..., Any] | str | None,
        options: dict[str, Any],
        *,
        evals_per_step: int | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._policy, self._options = function, policy, options
        self._evals_per_step = evals_per_step
        #: Reports of all runs, oldest first.
        self.runs: list[Report] = []

    @property
    def report(self) -> Report:
        """The last run's report.

        Raises:
            NoRunError: the sampler has not been called.
        """
        if not self.runs:
            raise NoRunError("no run to report yet: call the sampler first.")
        return self.runs[-1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the sampler; arguments and result are its own."""
        driver: Any = manager().drivers.get("k_diffusion")(
            Sampling(self._function, args, kwargs, self._evals_per_step)
        )
        backbone = self._find_backbone(driver.model)
        with self._gating(backbone) as gating:
            done = len(gating.runs)
            try:
                with gating.driven_by(driver):
                    return driver.call()
            finally:
                self.runs.extend(gating.runs[done:])

    def _gating(self, backbone: nn.Module) -> Any:
        active = active_gating(backbone)
        if self._policy is None and active is not None:
            return nullcontext(active)
        options = {k: v for k, v in self._options.items() if k != "backbone"}
        return gate(backbone, self._policy, **options)

    def _find_backbone(self, model: Any) -> nn.Module:
        given = self._options.get("backbone")
        if given is not None:
            adapter_for(unwrap(given))
            found: nn.Module = unwrap(given)
            return found
        return find_backbone(model)


class Sampling:
    """One call of a sampler: what the driver needs to bind."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        evals_per_step: int | None,
    ) -> None:
        self.function, self.args, self.kwargs = function, tuple(args), dict(kwargs)
        self.evals_per_step = evals_per_step


def wrap_sampler(
    sampler: Callable[..., Any] | str,
    policy: Policy | Callable[..., Any] | str | None = None,
    *,
    evals_per_step: int | None = None,
    **options: Any,
) -> GatedSampler:
    """Gate any k-diffusion sampler.

    Args:
        sampler: a function `(model, x, sigmas, ..., callback=None)`, or the name of a registered
            one: "dpmpp_2m", "heun", ...
        policy: as for `gate`. Without one the sampler uses the gating that is active on the
            backbone, or else the default policy.
        evals_per_step: model calls a step, for a sampler that calls no callback; samplers of
            k-diffusion are known and others are learned from their callbacks.
        **options: gate options (`backbone`, `layout`, `estimator`, ...) and the policy's own.

    Raises:
        OptionError: the sampler is no function and no known name, or an option is wrong.

    Example:
        >>> import torch
        >>> from tgate_sampling.testing import tiny_denoiser
        >>> @torch.no_grad()
        ... def euler(model, x, sigmas, callback=None):
        ...     for i in range(len(sigmas) - 1):
        ...         denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]))
        ...         if callback is not None:
        ...             callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        ...         x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        ...     return x
        >>> sample = wrap_sampler(euler, "fixed_step", gate_step=2)
        >>> x = sample(tiny_denoiser(), torch.ones(1, 4, 8, 8), torch.tensor([9.0, 3.0, 1.0, 0.1]))
        >>> sample.report.closed["cross"]
        (2,)
    """
    if isinstance(sampler, str):
        function = manager().samplers.get(sampler.removeprefix("sample_"))()
    elif callable(sampler):
        function = sampler
    else:
        raise OptionError(
            f"sampler={sampler!r} is neither a function nor a name: pass "
            "k_diffusion.sampling.sample_euler, or 'euler'."
        )
    if evals_per_step is not None and evals_per_step < 1:
        raise OptionError(f"evals_per_step={evals_per_step} must be 1 or more.")
    if policy is None and (extra := sorted(set(options) - RESERVED)):
        raise OptionError(
            f"{', '.join(extra)} without a policy: name the policy these belong to, as in "
            "wrap_sampler(sampler, 'fixed_step', gate_step=10)."
        )
    if isinstance(policy, str):
        own = {k: v for k, v in options.items() if k not in RESERVED}
        policy = get_policy(policy, **own)  # a wrong option is found here, not in the run
        options = {k: v for k, v in options.items() if k in RESERVED}
    return GatedSampler(function, policy, options, evals_per_step=evals_per_step)


def find_backbone(model: Any) -> nn.Module:
    """The one backbone inside a denoiser that an adapter knows.

    Raises:
        UnsupportedBackboneError: there is none, or more than one; pass `backbone=`.
    """
    found: dict[int, nn.Module] = {}
    inside: set[int] = set()  # parts of a backbone may look like one themselves
    for module in _modules(model):
        if id(module) not in inside and known(module):
            found.setdefault(id(module), module)
            inside |= {id(part) for part in module.modules()}
    if len(found) == 1:
        return next(iter(found.values()))
    models = ", ".join(m for e in manager().adapters.entries() for m in e.models if m != ANY)
    what = f"{len(found)} backbones" if found else "no backbone"
    raise UnsupportedBackboneError(
        f"{what} found inside {type(model).__name__} (known: {models}): pass "
        "wrap_sampler(..., backbone=unet)."
    )


def _modules(model: Any) -> list[nn.Module]:
    """Modules of a denoiser, also of a plain object or closure that holds them."""
    if isinstance(model, nn.Module):
        return list(model.modules())
    held = list(vars(model).values()) if hasattr(model, "__dict__") else []
    held += [getattr(model, "__self__", None)]
    held += [c.cell_contents for c in getattr(model, "__closure__", None) or () if _filled(c)]
    return [m for value in held if isinstance(value, nn.Module) for m in value.modules()]


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
