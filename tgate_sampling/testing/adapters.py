"""`check_adapter`: whether an adapter carries decisions out in its backbone, and only that."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from torch import nn

from tgate_sampling.adapter import Adapter
from tgate_sampling.testing import adapter_forms as forms
from tgate_sampling.testing import adapter_refusals as refusals
from tgate_sampling.testing import adapter_reuse as reuse
from tgate_sampling.testing import adapter_rows as rows
from tgate_sampling.testing import adapter_traces as traces
from tgate_sampling.testing.batches import Inputs, Timestep
from tgate_sampling.testing.cases import AdapterCase
from tgate_sampling.testing.results import CheckResult, OnFail, run_checks

#: All of them, the simplest first: a fault there explains those below.
ADAPTER_CHECKS: Final[tuple[Callable[[AdapterCase], None], ...]] = (
    traces.check_example_is_telling,
    traces.check_site_names_are_stable,
    refusals.check_asking_touches_nothing,
    reuse.check_open_is_free,
    forms.check_positional_calls_are_gated_alike,
    reuse.check_reuse_saves_calls,
    reuse.check_reuse_returns_what_was_stored,
    reuse.check_nothing_is_reused_before_it_is_stored,
    rows.check_row_wise_inputs_travel,
    reuse.check_branches_stay_apart,
    forms.check_shape_dtype_and_device_stay,
    forms.check_output_type_stays,
    rows.check_changed_rows_compute_in_full,
    reuse.check_signals_are_measured,
    traces.check_detaching_restores_the_model,
    traces.check_an_error_leaves_no_trace,
    refusals.check_a_second_gating_is_refused,
    refusals.check_a_concurrent_call_is_refused,
)


def check_adapter(
    adapter: Adapter | type[Adapter],
    model_factory: Callable[[], nn.Module],
    *,
    inputs: Inputs | None = None,
    timestep: Timestep | None = None,
    on_fail: OnFail = "raise",
    skip: Collection[str] = (),
) -> list[CheckResult]:
    """Run every check on an adapter; it need not be registered.

    Args:
        adapter: the class, or an instance.
        model_factory: returns a fresh model with the same weights each time; a tiny one will do.
        inputs: `inputs(rows)` gives all keyword arguments of one call but the timestep: the latents
            of all rows equal, their texts different. None takes the adapter's `example_inputs`
            filled with seeded numbers.
        timestep: `timestep(rows, value)` gives the timestep's keyword arguments, where one tensor
            without dimensions will not do.
        on_fail: "raise" stops at the first failure, "collect" returns them all.
        skip: names of checks to leave out.

    Raises:
        ConformanceError: a check failed, and `on_fail` is "raise".

    Example:
        >>> from tgate_sampling.testing import FakeAdapter, fake_backbone
        >>> all(r.passed for r in check_adapter(FakeAdapter, fake_backbone))
        True
    """
    case = AdapterCase(adapter, model_factory, inputs, timestep)
    return run_checks(ADAPTER_CHECKS, case, on_fail=on_fail, skip=skip)
