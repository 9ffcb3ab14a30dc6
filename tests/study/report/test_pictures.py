"""Which pictures are shown: the first ones and the worst, each in the file once."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import load_helper
from tgate_plugins.study.report.pictures import Store, grid, keys, worst_key
from tgate_plugins.study.report.reading import read
from tgate_plugins.study.report.values import Method, Model, Study

folder = load_helper("study/report/folder.py")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """A study of eight prompts and two seeds."""
    path = tmp_path_factory.mktemp("eight")
    folder.write(path, prompts=[f"prompt {i}" for i in range(8)], seeds=(3, 1))
    return path, read(path)


def test_rows_are_the_first_prompts_and_then_each_methods_worst(eight: tuple[Path, Study]) -> None:
    """Not the best ones: the order is that of the spec, at its first seed."""
    path, study = eight
    model = study.models[0]
    shown = tuple(m for m in model.methods if m.label in {"ungated", "pab"})
    found = grid(study, model, shown, Store(path))
    assert [(r.title, r.detail) for r in found] == [
        *((f"prompt {i}", "seed 3") for i in range(5)),
        ("each method's worst picture", "lowest PSNR of all"),
    ]
    pab = {k: study.pictures["emoji-sd", "pab", k].values["converged.psnr"] for k in keys(model)}
    worst = next(t for t in found[-1].tiles if t.method.label == "pab")
    assert f"{pab[f'{worst.prompt[-1]}-{worst.seed}']:.1f} dB" == worst.caption
    assert pab[f"{worst.prompt[-1]}-{worst.seed}"] == min(pab.values())


def test_a_method_without_fidelity_has_no_worst_picture() -> None:
    """There is nothing to order by."""
    model = Model("m", methods=(Method("a", images={"0-0": "x.png"}),))
    study = Study("", True, {}, {}, {}, (model,), {}, {})
    assert worst_key(study, model, model.methods[0]) is None


def test_a_picture_is_stored_once_and_pixel_for_pixel(tmp_path: Path) -> None:
    """The number it got stands for it ever after."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    store = Store(tmp_path)
    assert store.show("a.png") is store.show("a.png")
    head, _, coded = store.sources[0].partition(",")
    assert (len(store.sources), head) == (1, "data:image/png;base64")
    again = Image.open(io.BytesIO(base64.b64decode(coded)))
    assert (np.asarray(again) == pixels).all()
    assert not store.shrunk


def test_a_large_picture_is_made_smaller_and_it_is_known(tmp_path: Path) -> None:
    """The page says so at its foot."""
    Image.new("RGB", (1024, 512), "red").save(tmp_path / "a.png")
    store = Store(tmp_path)
    shown = store.show("a.png")
    assert shown is not None
    assert (shown.width, shown.height, shown.tiny, store.shrunk) == (384, 192, False, True)


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\nhalf"])
def test_a_missing_or_half_written_picture_is_a_gap(tmp_path: Path, content: Any) -> None:
    """A killed study leaves such files; the page is still made."""
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    assert Store(tmp_path).show("a.png") is None
