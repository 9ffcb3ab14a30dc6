"""From a YAML file, a suite and the command line to a spec; mistakes as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tgate_plugins.study.spec import ModelSpec, StudySpec
from tgate_sampling.errors import OptionError, UnknownNameError, nearest

SUITES: Final = Path(__file__).parent / "suites"

#: What `--quick` leaves of a spec.
QUICK_PROMPTS, QUICK_CONVERGED = 5, 100

M = TypeVar("M", bound=BaseModel)


def suites() -> tuple[str, ...]:
    """Names of the ready specs."""
    return tuple(sorted(path.stem for path in SUITES.glob("*.yaml")))


def suite_path(name: str) -> Path:
    """The file of a ready spec.

    Raises:
        UnknownNameError: there is none; the nearest is named.
    """
    if name not in suites():
        raise UnknownNameError(f"no suite is called {name!r}. {nearest(name, suites())}")
    return SUITES / f"{name}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a spec's file holds; prompts that are a file are read.

    Raises:
        OptionError: it is not there, is no YAML, or no mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(
            f"the spec {str(path)!r} cannot be read ({error.strerror}): give the path of a YAML "
            f"file, or --suite with one of {', '.join(suites())}."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is no YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(found, dict):
        raise OptionError(
            f"{path} holds no mapping: a spec is lines like `steps: 25`, with `models:` among them."
        )
    _read_prompts(found, path.parent)
    for model in found["models"] if isinstance(found.get("models"), list) else ():
        if isinstance(model, dict):
            _read_prompts(model, path.parent)
    return found


def _read_prompts(said: dict[str, Any], folder: Path) -> None:
    prompts = said.get("prompts")
    if isinstance(prompts, str) and prompts.endswith(".txt"):
        said["prompts"] = prompts_of(folder / prompts)


def prompts_of(path: Path) -> list[str]:
    """The lines of a file, without blank ones.

    Raises:
        OptionError: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"the prompts in {str(path)!r} cannot be read ({error}): give a text file with a "
            "prompt a line."
        ) from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise OptionError(f"{path} holds no prompt: write one a line.")
    return prompts


def checked(said: Mapping[str, Any], where: str) -> StudySpec:
    """The spec that was said.

    Args:
        said: fields and values.
        where: they were said, for the sentence.

    Raises:
        OptionError: the first mistake, with the path to it and the nearest name.
    """
    return _checked(StudySpec, said, where)


def _checked(kind: type[M], said: Mapping[str, Any], where: str) -> M:
    try:
        return kind.model_validate(dict(said))
    except ValidationError as error:
        raise OptionError(f"{where}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    """Pydantic's first complaint as a person would say it."""
    first, count = error.errors(include_url=False)[0], error.error_count()
    loc = tuple(part for part in first["loc"] if not str(part).startswith("function-"))
    more = f" ({count - 1} more after this one.)" if count > 1 else ""
    if first["type"] == "extra_forbidden":
        known = (ModelSpec if len(loc) > 1 else StudySpec).model_fields
        owner = f"{path_of(loc[:-1])} has" if len(loc) > 1 else "there is"
        return f"{owner} no field {loc[-1]!r}. {nearest(str(loc[-1]), known)}{more}"
    if first["type"] == "missing":
        return f"{path_of(loc)} is missing: write it.{more}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "value_error":
        return f"{path_of(loc)}: {message}.{more}"
    return f"{path_of(loc)} is {first['input']!r}: {message[:1].lower()}{message[1:]}.{more}"


def path_of(loc: Sequence[int | str]) -> str:
    """Where a field is.

    >>> path_of(("models", 0, "steps"))
    'models[0].steps'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def overridden(spec: StudySpec, said: Mapping[str, Any], models: Sequence[str]) -> StudySpec:
    """The spec with what the command line says on top: it is the last word for every model.

    Args:
        spec: of a file or a suite.
        said: fields of the spec that were given.
        models: those to take, with their overrides where the spec has them; all if empty.

    Raises:
        OptionError: as `checked`.
    """
    fields = spec.to_dict()
    own = {model["name"]: model for model in fields["models"]}
    chosen = [own.get(name, {"name": name}) for name in models] or list(own.values())
    fields["models"] = [{k: v for k, v in m.items() if k not in said} for m in chosen]
    return checked({**fields, **said}, "the command line")


def quick(spec: StudySpec) -> StudySpec:
    """The first five prompts, one seed, a nearer reference."""
    fields = spec.to_dict()
    prompts = {s.name: list(s.prompts[:QUICK_PROMPTS]) for s in spec.subjects}
    for part in (fields, *fields["models"]):
        part["seeds"] = part["seeds"][:1] if part["seeds"] else part["seeds"]
        if part["converged_steps"]:
            part["converged_steps"] = min(part["converged_steps"], QUICK_CONVERGED)
        part["prompts"] = part["prompts"][:QUICK_PROMPTS] if part["prompts"] else part["prompts"]
    if not fields["prompts"]:
        for model in fields["models"]:
            model["prompts"] = model["prompts"] or prompts[model["name"]]
    return checked({**fields, "fid": 0}, "--quick")
