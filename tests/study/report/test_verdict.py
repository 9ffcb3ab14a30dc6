"""The sentence of results: who beats fewer steps at equal cost, and what counts as nothing."""

from __future__ import annotations

import pytest

from tgate_plugins.study.report.values import Method, Model, Spread
from tgate_plugins.study.report.verdict import contest, judge, sentence, shown_gain

PROMPTS = ("a cat", "a dog", "a fish")


def method(label: str, low: float | None, high: float | None, **other: object) -> Method:
    """One that ran, and whose gain over its rival has this interval."""
    mean = None if low is None or high is None else (low + high) / 2
    gain = Spread(mean, low, high, n=3)
    fields = {"part": "related", "pictures": 3, "over_rival": {"converged.psnr": gain}, **other}
    return Method(label, **fields)  # type: ignore[arg-type]  # fields are of all kinds


def model(*methods: Method, prompts: tuple[str, ...] = PROMPTS, **other: object) -> Model:
    return Model("emoji-sd", prompts=prompts, seeds=(0,), methods=methods, **other)  # type: ignore[arg-type]  # the same


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.01, 2.0, "better"),
        (-2.0, -0.01, "worse"),
        (-0.01, 2.0, "same"),
        (0.0, 2.0, "same"),
        (-2.0, 0.0, "same"),
        (0.0, 0.0, "same"),
    ],
)
def test_only_an_interval_without_zero_is_a_difference(low: float, high: float, found: str) -> None:
    """An interval that touches zero holds it."""
    assert judge(Spread((low + high) / 2, low, high), 5) == found


def test_one_prompt_is_no_evidence() -> None:
    """Its bootstrap interval has no width, and would make every difference a victory."""
    assert judge(Spread(3.0, 3.0, 3.0, n=4), prompts=1) == "unknown"
    assert judge(Spread(3.0, 3.0, 3.0, n=1), prompts=5) == "unknown"
    assert judge(Spread(None, None, None, identical=5), prompts=5) == "unknown"


def test_winners_are_named_with_their_gain_and_losers_by_name() -> None:
    """The whole sentence, once."""
    found = model(
        method("slow", -6.0, -4.0),
        method("ours policy=interleave", 1.0, 2.0, part="ours"),
        method("even", -1.0, 1.5),
        method("awful", -9.0, -8.0),
        method("pab", 0.1, 0.3),
    )
    assert sentence(found) == (
        "2 of 5 methods end closer to the converged picture than fewer steps of the same cost"
        " (ours policy=interleave: +1.5 dB, pab: +0.2 dB); 2 end further from it (awful, slow);"
        " 1 makes no difference that 3 pictures can show."
    )


def test_a_long_list_is_cut_and_counted() -> None:
    """Three names, the worst losers first."""
    found = model(*(method(f"m{i}", -i - 1.0, -i - 0.5) for i in range(6)))
    assert sentence(found) == (
        "None of 6 methods ends closer to the converged picture than fewer steps of the same cost;"
        " 6 end further from it (m5, m4, m3 and 3 more)."
    )


def test_without_a_converged_picture_the_ungated_one_decides() -> None:
    """As for a model of few steps, which has no limit to converge to."""
    gain = {"ungated.psnr": Spread(1.0, 0.5, 1.5)}
    found = model(method("a", None, None, over_rival=gain))
    assert sentence(found) == (
        "1 of 1 method ends closer to the ungated picture than fewer steps of the same cost"
        " (a: +1.0 dB)."
    )


def test_one_prompt_gives_no_result() -> None:
    """Said, and not glossed over."""
    found = model(method("a", 1.0, 1.0), method("b", 2.0, 2.0), prompts=("a cat",))
    assert sentence(found) == (
        "No interval could be drawn from 1 prompt, so nothing can be said of 2 methods."
    )


def test_what_did_not_run_is_counted_and_a_figure_does_not_compete() -> None:
    """Nothing was compared, and the reason is there."""
    found = model(
        Method("a", status="refused"),
        Method("b", status="failed"),
        Method("c", status="failed"),
        method("text_window", -9.0, -8.0, part="figure"),
    )
    assert sentence(found) == ("No method could be compared with fewer steps: 1 refused, 2 failed.")
    assert sentence(model()) == "No method could be compared with fewer steps."
    assert sentence(model(why="no weights.")) == "It was not run: no weights."


def test_baselines_and_unfinished_methods_are_not_in_the_contest() -> None:
    """Fewer steps cannot win against itself."""
    found = contest(
        model(
            method("fewer_steps steps=9", 1.0, 2.0, part="baseline"),
            method("pending", 1.0, 2.0, pictures=0),
            method("alone", 1.0, 2.0, over_rival=None),
        )
    )
    assert (found.count, [m.label for m in found.alone]) == (0, ["alone"])


def test_a_gain_is_shown_with_its_interval() -> None:
    """Two decimals, a true minus."""
    assert shown_gain(method("a", -0.5, 1.0), "converged.psnr") == (
        "+0.25 dB, \N{MINUS SIGN}0.50 to +1.00"
    )
    assert shown_gain(Method("a"), "converged.psnr") == ""
