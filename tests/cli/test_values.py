"""`key=value`, sizes, and policies as they are written on a command line."""

from __future__ import annotations

from typing import Any

import pytest

import tgate_sampling as tg
from tgate_plugins.cli.spec import Spec, default_spec
from tgate_plugins.cli.values import parse_option, parse_options, parse_size, parse_value
from tgate_sampling.errors import OptionError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("none", "none"),
        ("inf", "inf"),
        ("cross+guidance", "cross+guidance"),
    ],
)
def test_a_value_is_what_a_person_means(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["gate_step", "gate_step=", "=10", "gate step=10", ""])
def test_a_malformed_option_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="write key=value, as in gate_step=10"):
        parse_option(text)


def test_blanks_around_an_option_do_not_matter() -> None:
    assert parse_options([" gate_step = 10 "]) == {"gate_step": 10}


def test_an_option_is_given_once() -> None:
    with pytest.raises(OptionError, match="gate_step is given twice, as 1 and 2"):
        parse_options(["gate_step=1", "gate_step=2"])


@pytest.mark.parametrize(("text", "size"), [("512", (512, 512)), ("512X768", (512, 768))])
def test_a_size_is_one_side_or_two(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "12x", "x12", "1x2x3", "wide", "-8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is no size: write 512"):
        parse_size(text)


def test_a_spec_sorts_the_options_of_the_policy_from_those_of_the_gate() -> None:
    spec = Spec.parse("fixed_step:gate_step=10,estimator=none,refresh=3,merge=cond")
    assert spec.options == {"gate_step": 10}
    assert spec.filling == {"estimator": "none", "refresh": 3, "merge": "cond"}


def test_a_label_says_what_was_said() -> None:
    spec = Spec.parse("fixed_step:gate_step=10,gates=cross+guidance,refresh=2")
    assert spec.label == "fixed_step gate_step=10 gates=cross+guidance refresh=2"
    assert Spec.parse("never").label == "never"


def test_an_option_that_is_a_collection_takes_a_plus() -> None:
    assert Spec.parse("fixed_step:gate_step=1,gates=cross").options["gates"] == ("cross",)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("fixd_step", UnknownNameError, "Did you mean 'fixed_step'"),
        ("fixed_step:gate_stp=10", OptionError, "Did you mean 'gate_step'"),
        ("fixed_step:gate_step=0.4", OptionError, "did you mean fraction=0.4"),
        ("fixed_step:gate_step=4,estimator=hld", OptionError, "Did you mean 'hold'"),
        ("fixed_step:gate_step", OptionError, "write key=value"),
        ("fixed_step:", OptionError, "write fixed_step:key=value, or fixed_step"),
        ("", UnknownNameError, "no policy is called ''"),
    ],
)
def test_a_bad_spec_is_refused_before_a_model_is_loaded(
    text: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        Spec.parse(text)


def test_what_cannot_go_together_is_refused_by_the_check(pipe: Any) -> None:
    with pytest.raises(OptionError, match="merge='mean' cannot go with"):
        Spec.parse("fixed_step:gate_step=4,estimator=hold,merge=mean").check(pipe)
    with pytest.raises(OptionError, match="refresh=0"):
        Spec.parse("fixed_step:gate_step=4,refresh=0").check(pipe)


def test_a_check_leaves_the_pipeline_free_for_the_next(pipe: Any) -> None:
    spec = Spec.parse("fixed_step:gate_step=4")
    spec.check(pipe)
    spec.check(pipe)


def test_the_default_is_the_librarys_own(pipe: Any) -> None:
    with tg.gate(pipe) as theirs:
        pass
    with default_spec().gate(pipe) as ours:
        pass
    assert (ours.policy, ours.filling) == (theirs.policy, theirs.filling)
