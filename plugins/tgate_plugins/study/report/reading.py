"""Reads a study's folder: `summary.json`, `pictures.parquet` and `curves.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet

from tgate_plugins.study.report.values import Curves, Method, Model, Picture, Spread, Study
from tgate_sampling.errors import OptionError

_PLAIN: Final = {f.name for f in fields(Method)} - {
    *(
        "events",
        "errors",
        "images",
        "measures",
        "over_rival",
        "fid",
        "fid_ungated",
        "fid_why",
        "closed",
    )
}


def read(folder: Path) -> Study:
    """Read what a study has written so far; the tables of pictures and curves may be missing.

    Raises:
        OptionError: the folder holds no study.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        raise OptionError(
            f"{folder} holds no summary.json: name the folder that `tgate-sampling study` wrote."
        )
    found = _load(summary)
    return Study(
        version=str(found.get("version", "")),
        complete=bool(found.get("complete", False)),
        hardware=found.get("hardware") or {},
        spec=found.get("spec") or {},
        left_out=found.get("left_out") or {},
        models=tuple(_model(m) for m in found.get("models") or ()),
        pictures=_pictures(folder / "pictures.parquet"),
        curves=_curves(folder / "curves.json"),
    )


def finite(value: Any) -> Any:
    """The same plain value with None for what is not a finite number: JSON knows no NaN.

    >>> finite({"psnr": [1.5, float("inf")], "n": 3})
    {'psnr': [1.5, None], 'n': 3}
    """
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _load(path: Path) -> Any:
    return finite(json.loads(path.read_text(encoding="utf-8")))


def _model(found: Mapping[str, Any]) -> Model:
    return Model(
        name=found["name"],
        pipeline=found.get("pipeline") or "",
        scheduler=found.get("scheduler") or "",
        steps=found.get("steps"),
        guidance_scale=found.get("guidance_scale"),
        converged_steps=found.get("converged_steps"),
        prompts=tuple(found.get("prompts") or ()),
        seeds=tuple(found.get("seeds") or ()),
        methods=tuple(_method(m) for m in found.get("methods") or ()),
        why=found.get("why"),
    )


def _method(found: Mapping[str, Any]) -> Method:
    closed = found.get("closed")
    fid = found.get("fid") or {}
    return Method(
        **{k: v for k, v in found.items() if k in _PLAIN and v is not None},
        measures=_spreads(found.get("measures")),
        over_rival=_spreads(found.get("over_rival")),
        fid=fid.get("classifier"),
        fid_ungated=fid.get("to_ungated"),
        fid_why=fid.get("why"),
        closed=None if closed is None else {k: tuple(v or ()) for k, v in closed.items()},
        events=tuple(_event(e) for e in found.get("events") or ()),
        errors=tuple(found.get("errors") or ()),
        images=found.get("images") or {},
    )


def _spreads(found: Mapping[str, Any] | None) -> dict[str, Spread]:
    read = {key: Spread.read(values) for key, values in (found or {}).items()}
    return {key: spread for key, spread in read.items() if spread is not None}


def _event(found: Any) -> str:
    if isinstance(found, Mapping):
        return " ".join(f"{k} {v}" for k, v in found.items() if v is not None)
    return str(found)


def _pictures(path: Path) -> dict[tuple[str, str, str], Picture]:
    if not path.is_file():
        return {}
    rows = pyarrow.parquet.read_table(path).to_pylist()
    return {
        (r["model"], r["method"], f"{r['prompt_number']}-{r['seed']}"): Picture(
            prompt=r["prompt"],
            values={k: v for k, v in r.items() if isinstance(v, float) and not math.isnan(v)},
            error=r.get("error") or None,
        )
        for r in rows
    }


def _curves(path: Path) -> dict[str, Curves]:
    if not path.is_file():
        return {}
    return {
        model: Curves(found["steps"], {s: tuple(v) for s, v in found["sites"].items()})
        for model, found in _load(path).items()
        if found and found.get("sites")
    }
