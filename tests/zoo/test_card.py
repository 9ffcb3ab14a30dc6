"""The measured numbers in the model's card."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgate_zoo import card, evaluate, loader, scenes
from tgate_zoo.classifier import CONFIG

FOLDER = loader.MODELS / "emoji-sd"


def test_the_card_meets_the_bars() -> None:
    run = card.read_facts(FOLDER)["measured"]["held_out"]
    assert (run["captions"], run["steps"], run["guidance"]) == (256, 25, 4)
    assert run["right"]["background"] >= 0.95
    assert run["right"]["single"] >= 0.70
    assert evaluate.meets_bars(run["right"])


def test_the_classifier_reads_real_renders() -> None:
    right = card.read_facts(FOLDER)["classifier"]["right"]
    assert right["single"] >= 0.98
    assert right["background"] >= 0.98


def test_the_readme_is_written_from_the_facts() -> None:
    facts = card.read_facts(FOLDER)
    text = (FOLDER / card.CARD).read_text()
    assert text == card.render_card(facts)
    for words in ("Apache-2.0", "SIL Open Font License", "--seed 0", "AMD", "held out"):
        assert words in text


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
