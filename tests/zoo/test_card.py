"""The measured numbers in the model's card."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgate_zoo import card, evaluate, loader, scenes
from tgate_zoo.classifier import CONFIG

FOLDER = loader.MODELS / "emoji-sd"
NAMES = ("emoji-lcm", "emoji-pixart", "emoji-sd", "emoji-sdxl")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_meets_the_bars(name: str) -> None:
    facts = card.read_facts(loader.MODELS / name)
    run = facts["measured"]["held_out"]
    assert (run["captions"], run["seed"]) == (256, 0)
    assert {key: run[key] for key in ("steps", "guidance")} == facts["defaults"]
    assert run["right"]["background"] >= 0.97
    assert run["right"]["single"] >= (0.75 if name == "emoji-lcm" else 0.85)
    assert facts["bars"] == evaluate.bars_of(name)
    assert evaluate.meets_bars(name, run["right"])


def test_a_model_below_a_bar_does_not_meet_them() -> None:
    just = {"background": 0.97, "single": 0.80}
    assert evaluate.meets_bars("emoji-lcm", just)
    assert not evaluate.meets_bars("emoji-sdxl", just)
    assert not evaluate.meets_bars("emoji-lcm", just | {"background": 0.96})


def test_the_classifier_reads_real_renders() -> None:
    right = card.read_facts(FOLDER)["classifier"]["right"]
    assert right["single"] >= 0.98
    assert right["background"] >= 0.98


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_is_written_from_the_facts(name: str) -> None:
    facts = card.read_facts(loader.MODELS / name)
    text = (loader.MODELS / name / card.CARD).read_text()
    assert text == card.render_card(facts)
    for words in ("Apache-2.0", "SIL Open Font License", "--seed 0", "AMD", "held out", name):
        assert words in text


def test_each_card_tells_its_own_story() -> None:
    texts = {name: (loader.MODELS / name / card.CARD).read_text() for name in NAMES}
    said = {
        "trained from scratch": {"emoji-pixart", "emoji-sd", "emoji-sdxl"},
        "distilled from `emoji-sd`": {"emoji-lcm"},
        "The autoencoder is that of `emoji-sd`": {"emoji-pixart", "emoji-sdxl"},
        "use_resolution_binning=False": {"emoji-pixart"},
        "arXiv 2310.04378": {"emoji-lcm"},
        '"right of"': {"emoji-sd"},
    }
    found = {
        words: {name for name, text in texts.items() if words in " ".join(text.split())}
        for words in said
    }
    assert found == said


def test_a_model_without_numbers_says_so(tmp_path: Path) -> None:
    facts = card.read_facts(FOLDER)
    del facts["measured"]
    card.write_card(tmp_path, facts)
    assert "Not measured yet." in (tmp_path / card.CARD).read_text()


def test_a_recorded_run_is_in_the_card(tmp_path: Path) -> None:
    facts = card.read_facts(FOLDER)
    del facts["measured"]
    model = tmp_path / "some-model"
    model.mkdir()
    card.write_card(model, facts)
    small, pair = scenes.single_scenes(True)[0], scenes.pair_scenes(True)[0]
    verdicts = [
        evaluate.Verdict(small, objects=True, background=True),
        evaluate.Verdict(pair, objects=False, background=True),
    ]
    settings = {"captions": 2, "steps": 3, "guidance": 1.5, "seed": 7}
    evaluate.record(model, loader.MODELS / "emoji-classifier", "seen", settings, verdicts)
    run = card.read_facts(model)["measured"]["seen"]
    assert run["right"] == {"background": 1.0, "single": 1.0, "small": 1.0, "pair": 0.0}
    assert run["counts"] == {"background": 2, "single": 1, "small": 1, "pair": 1}
    assert (
        "evaluate some-model --captions 2 --steps 3 --guidance 1.5 --seed 7 --seen"
        in (model / card.CARD).read_text()
    )


def test_held_out_scenes_are_held_out_and_half_single() -> None:
    drawn = evaluate.held_out_scenes()
    assert len({scene.caption for scene in drawn}) == 256
    assert all(scene.held_out for scene in drawn)
    assert sum(scene.second is None for scene in drawn) == 128
    assert not any(scene.held_out for scene in evaluate.seen_scenes())


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path) -> None:
    from tgate_zoo.classifier import load_classifier

    with pytest.raises(FileNotFoundError, match="--stage classifier"):
        load_classifier(tmp_path)
    (tmp_path / CONFIG).write_text('{"objects": ["pear"], "backgrounds": [], "side": 32}')
    with pytest.raises(ValueError, match="--stage classifier"):
        load_classifier(tmp_path)
