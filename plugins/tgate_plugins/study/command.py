"""`tgate-sampling study`: the words of the command line as a spec and a place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tgate_plugins.study.extra import STUDY, require
from tgate_sampling.errors import OptionError


@dataclass(frozen=True)
class Words:
    """What `study` was asked to do; see its `--help`.

    Args:
        spec: a YAML file.
        suite: a ready spec.
        models: those to take.
        prompts_file: with a prompt a line.
        fields: of the spec that were given on the command line.
        place: fields of `run.Settings`.
    """

    out: Path
    spec: Path | None = None
    suite: str | None = None
    models: tuple[str, ...] = ()
    prompts_file: Path | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    resume: bool = False


def study(words: Words, console: Console, errors: Console) -> int:
    """Run or go on with a study; the exit code.

    Raises:
        MissingExtraError: a package of the extra `study` is not here.
        TGateError: bad input.
    """
    require("study", STUDY, "tgate-sampling study")
    from tgate_plugins.study import run

    settings = run.Settings(out=words.out, **words.place)
    return run.study(spec_of(words), settings, console, errors)


def spec_of(words: Words) -> Any:
    """The spec that the words amount to.

    Raises:
        OptionError: they contradict each other, or the spec is wrong.
    """
    from tgate_plugins.study import folder, reading

    if words.spec and words.suite:
        raise OptionError(
            f"{words.spec} and --suite {words.suite} are two specs: give one of them."
        )
    said = dict(words.fields)
    if words.prompts_file is not None:
        said["prompts"] = [*said.get("prompts", ()), *reading.prompts_of(words.prompts_file)]
    source = words.spec or (words.suite and reading.suite_path(words.suite))
    asked = bool(source or said or words.models or words.quick)
    if words.resume or (not asked and folder.what_is_there(words.out) is not None):
        if asked:
            raise OptionError(
                "--resume goes on with the spec that is in the folder: leave the others out, or "
                "leave --resume out, for the same spec goes on by itself."
            )
        return folder.resumed(words.out)
    if source:
        spec = reading.checked(reading.read_yaml(Path(source)), str(source))
        spec = reading.overridden(spec, said, words.models)
    else:
        models = [{"name": name} for name in words.models or ("emoji-sd",)]
        spec = reading.checked({"models": models, **said}, "the command line")
    return reading.quick(spec) if words.quick else spec
