"""Reference mode beside the reference: tgate 1.0.0 and ours, in one process, on equal pipelines.

Each side gets a fresh pipeline, since the package leaves its own patched.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_plugins.tgate import TGate

reference = pytest.importorskip(
    "tgate",
    reason="NOTHING HERE WAS COMPARED: the reference is not installed "
    "(pip install --no-deps tgate==1.0.0)",
)

families = load_helper("golden/tiny_families.py")
relative_l2 = load_helper("golden_io.py").relative_l2

# diffusers' schedulers hand tensors to numpy 2, which asks for an `__array__` that torch has not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: float32 accuracy; the smallest planted mistake below moves the latents by 2.7e-5.
TOLERANCE = 1e-5

STEPS = 18

#: The package's loader for each family, and what its calls need beside the schedule.
LOADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd": ("TgateSDLoader", {}),
    "sdxl": ("TgateSDXLLoader", {}),
    "lcm_sdxl": ("TgateSDXLLoader", {"lcm": True}),
    "pixart_alpha": ("TgatePixArtAlphaLoader", {}),
    "pixart_sigma": ("TgatePixArtSigmaLoader", {}),
    "svd": ("TgateSVDLoader", {}),
}

#: (gate_step, sp_interval, fi_interval, warm_up)
SETTINGS = {
    "v1": (10, 1, 1, 0),
    "v2": (10, 5, 1, 2),
    "v2 of PixArt": (15, 3, 1, 2),
    "both intervals": (7, 2, 3, 0),
    "gate 1": (1, 1, 1, 0),
}


def options(setting: tuple[int, int, int, int]) -> dict[str, int]:
    names = ("gate_step", "sp_interval", "fi_interval", "warm_up")
    return dict(zip(names, setting, strict=True))


def prepared(family: str, scheduler: str | None) -> Any:
    """A fresh pipeline, with another scheduler of the same training if one is named."""
    pipe = families.FAMILIES[family].make()
    if scheduler is not None:
        made = getattr(diffusers, scheduler)
        own = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
        pipe.scheduler = made.from_config(pipe.scheduler.config, **own)
    return pipe


@functools.cache  # several of ours are held against each
def theirs(
    family: str,
    setting: tuple[int, int, int, int],
    batch: int = 1,
    scheduler: str | None = None,
    **call: Any,
) -> torch.Tensor:
    """Latents of the package."""
    name, extra = LOADERS[family]
    pipe = getattr(reference, name)(prepared(family, scheduler))
    settings = {"num_inference_steps": STEPS, **options(setting), **extra, **call}
    latents: torch.Tensor = families.FAMILIES[family].run(pipe.tgate, batch, **settings)
    return latents


def ours(
    family: str, policy: TGate, batch: int = 1, scheduler: str | None = None, **call: Any
) -> torch.Tensor:
    """Latents of the same call under our policy."""
    pipe = prepared(family, scheduler)
    with tg.gate(pipe, policy):
        latents: torch.Tensor = families.FAMILIES[family].run(
            pipe, batch, **{"num_inference_steps": STEPS, **call}
        )
    return latents


def test_the_reference_is_the_version_that_is_meant() -> None:
    """What is compared is tgate 1.0.0."""
    assert importlib.metadata.version("tgate") == "1.0.0"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", LOADERS)
def test_latents_are_the_package_s(family: str, setting: str) -> None:
    """In every family and setting, to float32 accuracy."""
    chosen = SETTINGS[setting]
    found = ours(family, TGate(**options(chosen)))
    assert relative_l2(found, theirs(family, chosen)) <= TOLERANCE


@pytest.mark.parametrize("setting", ["v2", "both intervals"])
@pytest.mark.parametrize("family", LOADERS)
def test_latents_of_two_prompts_are_the_package_s(family: str, setting: str) -> None:
    """Rows of a batch are halved, merged and repeated as the package does."""
    chosen = SETTINGS[setting]
    found = ours(family, TGate(**options(chosen)), batch=2)
    assert relative_l2(found, theirs(family, chosen, batch=2)) <= TOLERANCE


@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart_alpha", "pixart_sigma"])
def test_two_images_of_a_prompt_are_the_package_s(family: str) -> None:
    """`num_images_per_prompt` multiplies the rows after the text was encoded."""
    call = {"num_images_per_prompt": 2, "latents": torch.linspace(-2, 2, 512).view(2, 4, 8, 8)}
    found = ours(family, TGate(**options(SETTINGS["v2"])), **call)
    assert relative_l2(found, theirs(family, SETTINGS["v2"], **call)) <= TOLERANCE


# PixArt-alpha is left out: there the package counts one loop from 0, one from the warm-up, and
# fails with this scheduler.
@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart_sigma"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_scheduler_that_warms_up_is_counted_as_the_package_counts_it(
    family: str, setting: str
) -> None:
    """PNDM evaluates one timestep twice; the package's step 0 is the second of them."""
    chosen = SETTINGS[setting]
    found = ours(family, TGate(**options(chosen)), scheduler="PNDMScheduler")
    assert relative_l2(found, theirs(family, chosen, scheduler="PNDMScheduler")) <= TOLERANCE


@pytest.mark.parametrize("family", ["sdxl", "pixart_alpha", "pixart_sigma"])
@pytest.mark.parametrize("setting", ["v2", "both intervals", "gate 1"])
def test_a_run_without_guidance_is_the_package_s(family: str, setting: str) -> None:
    """Two prompts and one branch: the package must be told (lcm=True), we see it."""
    chosen = SETTINGS[setting]
    found = ours(family, TGate(**options(chosen)), batch=2, guidance_scale=0.0)
    expected = theirs(family, chosen, batch=2, guidance_scale=0.0, lcm=True)
    assert relative_l2(found, expected) <= TOLERANCE


@pytest.mark.parametrize("family", ["pixart_alpha", "pixart_sigma"])
def test_equal_noise_for_two_prompts_is_no_guidance(family: str) -> None:
    """PixArt's pipelines do not say whether they guide, and two prompts may start alike."""
    latents = torch.linspace(-2, 2, 256).view(1, 4, 8, 8).repeat(2, 1, 1, 1)
    call = {"guidance_scale": 0.0, "latents": latents}
    found = ours(family, TGate(**options(SETTINGS["v2"])), batch=2, **call)
    expected = theirs(family, SETTINGS["v2"], batch=2, **call, lcm=True)
    assert relative_l2(found, expected) <= TOLERANCE


def test_the_work_saved_on_a_video_is_counted() -> None:
    """What ran and what was saved add up to the ungated run."""
    pipe = prepared("svd", None)
    with tg.gate(pipe, "tgate", gate_step=3) as gating:
        families.FAMILIES["svd"].run(pipe, 1, num_inference_steps=6)
    spent = gating.report.macs
    saved = sum(macs.true for macs in spent.saved.values())
    assert {"guidance", "cross"} <= set(spent.saved)
    assert spent.done.true + saved == pytest.approx(spent.ungated.true)


@dataclasses.dataclass(frozen=True)
class OneBranch(TGate):
    """Keeps the rows that run instead of the mean of both branches."""

    merge = "cond"


@dataclasses.dataclass(frozen=True)
class OtherRows(TGate):
    """Runs the other branch after the gate."""

    def _at(self, c: int) -> tg.Decision:
        return dataclasses.replace(super()._at(c), rows="cond")


#: What is wrong, the policy that does it, and the setting that must show it.
MUTANTS: dict[str, tuple[TGate, str]] = {
    "gate late": (TGate(11, 5, 1, 2), "v2"),
    "gate early": (TGate(9, 5, 1, 2), "v2"),
    "warm-up long": (TGate(10, 5, 1, 3), "v2"),
    "warm-up short": (TGate(10, 5, 1, 1), "v2"),
    "planning interval": (TGate(10, 4, 1, 2), "v2"),
    "fidelity interval": (TGate(7, 2, 4, 0), "both intervals"),
    "one branch": (OneBranch(10, 5, 1, 2), "v2"),
}

#: Without guidance there is one branch, and none to choose or to average.
UNGUIDED = {"lcm_sdxl": {"one branch"}}


@pytest.mark.parametrize(
    ("family", "mutant"),
    [(f, m) for f in LOADERS for m in MUTANTS if m not in UNGUIDED.get(f, ())],
)
def test_a_planted_mistake_is_seen(family: str, mutant: str) -> None:
    """Each wrong schedule leaves the package's latents: the check is checked."""
    policy, setting = MUTANTS[mutant]
    distance = relative_l2(ours(family, policy), theirs(family, SETTINGS[setting]))
    assert distance > TOLERANCE


def test_the_other_branch_s_rows_are_seen() -> None:
    """SDXL's pooled text tells which branch runs; elsewhere the text is dead after the gate."""
    found = ours("sdxl", OtherRows(10, 5, 1, 2))
    assert relative_l2(found, theirs("sdxl", SETTINGS["v2"])) > TOLERANCE
