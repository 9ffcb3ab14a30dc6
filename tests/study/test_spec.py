"""Specs: what is said, what is left to the study, and what is wrong, in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tgate_plugins.cli.samplers import SAMPLERS
from tgate_plugins.study import reading
from tgate_plugins.study.names import slug
from tgate_plugins.study.reading import checked, overridden, quick
from tgate_plugins.study.spec import StudySpec
from tgate_sampling.errors import OptionError
from tgate_zoo.scenes import PROMPTS


def made(**fields: Any) -> StudySpec:
    return checked({"models": ["emoji-sd"], **fields}, "here")


def test_a_model_takes_from_the_study_what_it_does_not_say_itself() -> None:
    spec = made(
        models=["emoji-sd", {"name": "x", "path": "owner/x", "steps": 4, "prompts": "a fox"}],
        steps=10,
        guidance_scale=7.5,
        prompts=["a cat"],
        seeds=2,
        negative_prompt="blur",
        size="64x32",
    )
    zoo, other = spec.subjects
    assert (zoo.path, zoo.steps, zoo.prompts, zoo.seeds) == ("emoji-sd", 10, ("a cat",), (0, 1))
    assert (other.path, other.steps, other.prompts) == ("owner/x", 4, ("a fox",))
    assert other.arguments == {"negative_prompt": "blur", "width": 64, "height": 32}
    assert zoo.images == ((0, 0), (0, 1))


def test_seeds_are_a_count_or_a_list() -> None:
    assert made(seeds=3).seeds == [0, 1, 2]
    assert made(seeds=[7, 5, 7]).seeds == [7, 5]


def test_a_reference_that_is_no_nearer_than_the_run_is_none() -> None:
    assert made(steps=25, converged_steps=25).subjects[0].converged_steps == 0
    assert made(steps=25, converged_steps=26).subjects[0].converged_steps == 26


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"stesp": 3}, "here: there is no field 'stesp'. Did you mean 'steps'?"),
        (
            {"models": [{"name": "a", "stesp": 3}]},
            "here: models[0] has no field 'stesp'. Did you mean 'steps'?",
        ),
        ({"models": [{"steps": 3}]}, "here: models[0].name is missing: write it."),
        ({"models": []}, "here: models: a study needs a model"),
        ({"models": ["a", "a"]}, "here: models: model 'a' is there twice"),
        ({"models": "emoji-sd"}, "here: models is 'emoji-sd': input should be a valid list."),
        ({"steps": "many"}, "here: steps is 'many': input should be a valid integer"),
        ({"steps": 0}, "here: steps is 0: input should be greater than 0."),
        ({"seeds": 0}, "here: seeds: a study needs a seed or more, 0 were asked for."),
        ({"seeds": [-1]}, "here: seeds[0] is -1: input should be greater than or equal to 0."),
        ({"prompts": []}, "here: prompts: the list is empty: leave the field out, or name one."),
        ({"prompts": ["a cat", "  "]}, "here: prompts: a prompt is empty: write what to draw."),
        ({"methods": ["deepcach"]}, "Did you mean 'deepcache'?"),
        ({"methods": ["deepcache:intervl=3"]}, "Did you mean 'interval'?"),
        ({"methods": "ours:policy=interleav"}, "Did you mean 'interleave'?"),
        ({"metrics": ["psn"]}, "here: metrics: no metric is called 'psn'. Did you mean 'psnr'?"),
        ({"fid": 100}, "here: fid: FID of 100 pictures says nothing: ask for 2000 or more"),
        ({"size": "big"}, "'big' is no size: write 512"),
        ({"stesp": 3, "sed": 1}, "(1 more after this one.)"),
    ],
)
def test_a_mistake_is_a_sentence_with_the_path_to_it(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        made(**fields)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: [", "is no YAML"),
        ("- a\n- b", "holds no mapping"),
        ("", "holds no mapping"),
        ("models: [emoji-sd]\nprompts: none.txt", "the prompts in"),
        ("models: [emoji-sd]\nprompts: empty.txt", "holds no prompt: write one a line."),
        ("models: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_file_that_is_no_spec_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(OptionError) as caught:
        reading.read_yaml(tmp_path / "spec.yaml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_may_be_a_file_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a cat\n\n a <b>dog</b> \n")
    (tmp_path / "spec.yaml").write_text("models: [{name: a/b, prompts: mine.txt}]\n")
    spec = checked(reading.read_yaml(tmp_path / "spec.yaml"), "here")
    assert spec.subjects[0].prompts == ("a cat", "a <b>dog</b>")


def test_a_spec_comes_back_from_its_file_as_it_was() -> None:
    spec = made(models=["emoji-sd", {"name": "b", "path": "o/b", "size": 64}], seeds=2, fid=2000)
    assert checked(yaml.safe_load(yaml.safe_dump(spec.to_dict())), "there") == spec


def test_the_command_line_has_the_last_word_for_every_model() -> None:
    spec = made(models=["a", {"name": "b", "path": "o/b", "steps": 4, "sampler": "ddim"}])
    over = overridden(spec, {"steps": 7}, ())
    assert [s.steps for s in over.subjects] == [7, 7]
    assert over.subjects[1].sampler == "ddim"


def test_models_of_a_spec_are_picked_with_what_it_says_of_them() -> None:
    spec = made(models=["a", {"name": "b", "path": "o/b", "steps": 4}])
    over = overridden(spec, {}, ("b", "c"))
    assert [(s.name, s.path, s.steps) for s in over.subjects] == [("b", "o/b", 4), ("c", "c", 25)]


def test_quick_is_five_prompts_one_seed_and_a_nearer_reference() -> None:
    spec = quick(made(prompts=[str(i) for i in range(9)], seeds=[4, 5], fid=2000))
    (subject,) = spec.subjects
    assert subject.prompts == tuple("01234")
    assert (subject.seeds, subject.converged_steps, subject.fid) == ((4,), 100, 0)
    assert len(quick(made()).subjects[0].prompts) == 5


def suite(name: str) -> StudySpec:
    return checked(reading.read_yaml(reading.suite_path(name)), name)


def test_the_zoo_suite_draws_the_prompts_of_the_studies_and_begins_with_some_of_each_kind() -> None:
    spec = suite("zoo")
    assert sorted(spec.prompts or ()) == sorted(PROMPTS)
    places = [PROMPTS.index(text) for text in (spec.prompts or ())[:5]]
    seen, unseen, pairs = range(24), range(24, 48), range(48, 64)
    kinds = [sum(place in kind for place in places) for kind in (seen, unseen, pairs)]
    assert kinds == [2, 2, 1]
    assert len(spec.subjects) == 4
    assert all(subject.methods is None for subject in spec.subjects)


def test_the_published_suite_is_the_four_models_with_five_prompts() -> None:
    spec = suite("published")
    assert [s.name for s in spec.subjects] == ["sd-1.5", "sdxl", "pixart-alpha", "lcm-sdxl"]
    lcm = spec.subjects[-1]
    assert (lcm.unet, lcm.sampler, lcm.steps) == ("latent-consistency/lcm-sdxl", "lcm", 4)
    assert lcm.converged_steps == 0
    assert all(len(subject.prompts) == 5 for subject in spec.subjects)
    assert "lcm" not in SAMPLERS  # the study brings it; drop that when `compare` does


def test_an_unknown_suite_gets_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"no suite is called 'zo'\. Did you mean 'zoo'?"):
        suite("zo")


@pytest.mark.parametrize(
    "texts",
    [
        ("a b", "a,b", "a_b", "a/b", "a:b", "a.b", "a-b"),
        ("x" * 200, "x" * 201),
        ("", " ", ".", "..", "/"),
        ("ä", "ö"),
    ],
)
def test_different_names_are_different_files_that_stay_in_their_folder(
    texts: tuple[str, ...],
) -> None:
    slugs = [slug(text) for text in texts]
    assert len(set(slugs)) == len(texts)
    assert all("/" not in s and s not in ("", ".", "..") and len(s) < 140 for s in slugs)


@pytest.fixture
def claimed(tiny_spec: Callable[..., Any], tmp_path: Path) -> tuple[Any, Path]:
    from tgate_plugins.study.folder import claim

    spec = tiny_spec()
    claim(tmp_path, spec)
    return spec, tmp_path


def test_another_study_in_the_folder_is_refused_and_told_apart(
    claimed: tuple[Any, Path], tiny_spec: Callable[..., Any]
) -> None:
    from tgate_plugins.study.folder import claim

    spec, folder = claimed
    claim(folder, spec)  # its own goes on
    with pytest.raises(OptionError) as caught:
        claim(folder, tiny_spec(steps=9, seeds=2))
    said = str(caught.value)
    assert "its steps are 3, yours 9" in said
    assert "its seeds are [0], yours [0, 1]" in said
    assert "--resume" in said
    assert "--force" in said


def test_force_throws_away_what_a_study_wrote_and_nothing_else(
    claimed: tuple[Any, Path], tiny_spec: Callable[..., Any]
) -> None:
    from tgate_plugins.study.folder import OURS, claim, resumed

    _, folder = claimed
    for name in OURS:
        path = folder / name
        if "." not in name:
            (path / "deep").mkdir(parents=True)
        else:
            path.touch()
    (folder / "notes.txt").write_text("mine")
    claim(folder, tiny_spec(steps=9), force=True)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "study.yaml"}
    assert resumed(folder).steps == 9


def test_a_log_without_its_spec_is_nobodys(tiny_spec: Callable[..., Any], tmp_path: Path) -> None:
    from tgate_plugins.study.folder import claim

    (tmp_path / "log.jsonl").touch()
    with pytest.raises(OptionError, match="nobody knows what study it is"):
        claim(tmp_path, tiny_spec())
