"""A study's folder: whose it is, and what may be done in it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tgate_plugins.cli.folders import writable
from tgate_plugins.study.pictures import write_whole
from tgate_plugins.study.reading import checked
from tgate_plugins.study.spec import StudySpec
from tgate_sampling.errors import OptionError

SPEC: Final = "study.yaml"
LOG: Final = "log.jsonl"
TABLE: Final = "pictures.parquet"
SUMMARY: Final = "summary.json"
CURVES: Final = "curves.json"

#: All that a study writes; nothing else in its folder is ever touched.
OURS: Final = (SPEC, LOG, TABLE, SUMMARY, CURVES, "report.html", "images", "fid")


def claim(folder: Path, spec: StudySpec, *, force: bool = False) -> None:
    """Make the folder this study's, or find that it is.

    Args:
        folder: of the study.
        spec: what is to be run.
        force: throw another study away that is there.

    Raises:
        OptionError: another study is there, or nothing can be written.
    """
    writable(folder)
    there = what_is_there(folder)
    if there is not None and not force:
        if differing := differences(there, spec.to_dict()):
            raise OptionError(
                f"{folder} holds another study ({'; '.join(differing)}): type --out with another "
                "folder for a new study, --resume without a spec to go on with the one that is "
                "there, or --force to throw it away."
            )
        return
    if force:
        clear(folder)
    elif (folder / LOG).exists():
        raise OptionError(
            f"{folder} holds a {LOG} without its {SPEC}, so that nobody knows what study it is: "
            "type --out with another folder, or --force to throw it away."
        )
    text = yaml.safe_dump(spec.to_dict(), sort_keys=False, allow_unicode=True)
    write_whole(folder / SPEC, text.encode())


def what_is_there(folder: Path) -> dict[str, Any] | None:
    """The spec of the folder's study as plain values; None where there is none."""
    path = folder / SPEC
    if not path.is_file():
        return None
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        found = None
    return found if isinstance(found, dict) else {}


def resumed(folder: Path) -> StudySpec:
    """The spec of the study that is there.

    Raises:
        OptionError: there is none.
    """
    there = what_is_there(folder)
    if there is None:
        raise OptionError(
            f"{folder} holds no study to go on with: give a spec, --suite, or --model and --prompt."
        )
    return checked(there, str(folder / SPEC))


def differences(there: Mapping[str, Any], asked: Mapping[str, Any], most: int = 3) -> list[str]:
    """Which fields differ, each in a clause.

    >>> differences({"steps": 25, "seeds": [0]}, {"steps": 10, "seeds": [0]})
    ['its steps are 25, yours 10']
    """
    names = [name for name in {**asked, **there} if there.get(name) != asked.get(name)]
    told = [f"its {n} are {_short(there.get(n))}, yours {_short(asked.get(n))}" for n in names]
    return [*told[:most], *([f"and {len(told) - most} more"] if len(told) > most else [])]


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value):
        said = [{k: v for k, v in one.items() if v is not None and k != "name"} for one in value]
        value = [
            f"{one['name']} {rest or ''}".strip() for one, rest in zip(value, said, strict=True)
        ]
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def clear(folder: Path) -> None:
    """Throw a study away; the log goes first, so that what is left is not taken for finished."""
    for name in (LOG, *OURS):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
