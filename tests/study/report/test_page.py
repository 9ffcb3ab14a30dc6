"""The page as text: whole, valid, escaped, self-contained, and there whatever is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_helper
from tgate_plugins.study.report import render
from tgate_sampling.errors import OptionError

folder = load_helper("study/report/folder.py")
ROOT = Path(__file__).parents[3]

VOID = {"meta", "link", "img", "input", "br", "wbr", "hr"}


class Page(HTMLParser):
    """Reads a page as a browser would not: any tag out of place is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or "code"

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.errors.append(f"</{tag}> closes {self.open[-1:]} at {self.getpos()}")
        else:
            self.open.pop()
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.data[self._script] = self.data.get(self._script, "") + data
        elif self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str, name: str) -> list[str]:
        """An attribute of every such tag that has it."""
        return [a[name] or "" for t, a in self.tags if t == tag and name in a]


def page_of(path: Path) -> Page:
    return Page(render(path).read_text(encoding="utf-8"))


def words(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of two models and five prompts, one of them hostile."""
    path = tmp_path_factory.mktemp("study")
    folder.write(path, ("emoji-sd", "emoji-pixart"))
    return page_of(path)


def test_every_tag_is_closed_in_order_and_every_id_is_its_own(page: Page) -> None:
    """The page is well formed."""
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert page.errors == []
    assert sorted(ids) == sorted(set(ids))


def test_the_reader_of_pages_finds_what_is_wrong() -> None:
    """A planted offender: a check that finds nothing here would find nothing there."""
    assert Page("<div><p>a</div>").errors == [
        "</div> closes ['p'] at (1, 9)",
        "<div> is never closed",
        "<p> is never closed",
    ]


def test_nothing_is_asked_of_the_network(page: Page) -> None:
    """No attribute that is loaded from names a place, and the browser is told to allow none."""
    loaded = [v for t, a in page.tags for k, v in a.items() if k in {"src", "href", "action"}]
    assert [v for v in loaded if not (v or "").startswith(("#", "data:"))] == []
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert (policy or "").startswith("default-src 'none'")


def test_each_picture_is_in_the_file_once_and_each_one_is_used(page: Page) -> None:
    """A store of sources, and tiles that name them by number."""
    sources = json.loads(page.data["pictures"])
    used = {int(n) for n in page.all("img", "data-source")}
    assert len(set(sources)) == len(sources)
    assert used == set(range(len(sources)))
    assert all(s.startswith("data:image/png;base64,") for s in sources)


def test_plotly_is_in_the_file_once(page: Page) -> None:
    """It is most of the size."""
    assert page.data["code"].count("plotly.js v") == 1


def test_a_prompt_with_markup_is_text(page: Page) -> None:
    """Nothing of it becomes a tag, and all of it can be read."""
    hostile = folder.PROMPTS[-1]
    assert hostile in page.text
    assert "alert('seen')" not in page.data["code"]
    assert [t for t, _ in page.tags if t == "script"] == ["script"] * 4
    assert f"pab: {hostile}" in page.all("img", "alt")


def test_labels_sources_reasons_events_and_spec_are_escaped_too(tmp_path: Path) -> None:
    """Whatever a plugin says of itself is text."""
    summary = folder.write(tmp_path)
    bad = "<img src=x onerror=alert(1)></script>"
    method = summary["models"][0]["methods"][-3]
    method |= {"label": f"name {bad}", "source": bad, "events": [bad], "errors": [bad]}
    summary["models"][0]["methods"].append(folder.out(f"out {bad}", "ours", "failed", bad))
    summary |= {"version": bad, "spec": {bad: bad}, "left_out": {bad: bad}}
    summary["hardware"]["processor"] = bad
    summary["models"][0] |= {"name": f"model {bad}", "pipeline": bad}
    folder.save(tmp_path, summary)
    page = page_of(tmp_path)
    assert page.errors == []
    assert [a for t, a in page.tags if t == "img" and "onerror" in a] == []
    assert page.text.count(bad) >= 10


def test_the_head_says_per_model_what_was_found(page: Page) -> None:
    """Computed from the intervals, model by model."""
    said = words(page)
    assert said.count("end closer to the converged picture than fewer steps of the same cost") == 2
    assert "30 comparisons at 95 %: about 1.5 of these intervals would leave zero out" in said


def test_what_did_not_run_is_a_row_with_its_reason(page: Page) -> None:
    """In the table, not in a footnote."""
    assert "refused magcache is made for transformers" in words(page)
    assert "failed cache-dit: expected 2 outputs, got 1 (block 3)." in words(page)


def test_the_rival_is_below_its_methods_and_has_no_part_that_a_filter_hides(page: Page) -> None:
    """The switches hide ours, others' and figures; the plain pipeline has none."""
    shown = set(page.all("input", "data-show"))
    rows = [a for t, a in page.tags if t == "tr" and a.get("class") in {"method", "rival"}]
    assert shown == {"ours", "related", "figure"}
    rivals = [a for a in rows if a["class"] == "rival"]
    assert {a["data-part"] for a in rivals} == {"baseline"}
    assert len(rivals) == 2 * len(folder.FEWER)


def test_hardware_versions_and_what_is_left_out_are_told(page: Page) -> None:
    """Numbers without a machine are worth nothing."""
    for said in (
        "AMD EPYC 7B13",
        "2.13.0",
        "0.42.1",
        "CLIP's weights are not here",
        "it needs 2,000.",
    ):
        assert said in page.text


def test_the_page_is_small(tmp_path: Path) -> None:
    """Four models, five prompts, 28 methods of 32 pixels: under 8 MB."""
    folder.write(tmp_path, ("a", "b", "c", "d"))
    assert render(tmp_path).stat().st_size < 8e6


def test_nothing_but_a_summary_makes_a_page(tmp_path: Path) -> None:
    """No table of pictures, no curves, no pictures."""
    folder.save(tmp_path, {"models": [{"name": "m", "methods": [{"label": "a", "pictures": 1}]}]})
    page = page_of(tmp_path)
    assert page.errors == []
    for said in ("not finished", "There are no pictures", "No curves", "Nothing was measured"):
        assert said in words(page)


def test_no_model_at_all_makes_a_page(tmp_path: Path) -> None:
    """A study that was stopped at once."""
    folder.save(tmp_path, {"complete": True})
    page = page_of(tmp_path)
    assert (page.errors, "A study without models" in page.text) == ([], True)


def test_a_study_in_which_everything_failed_says_so(tmp_path: Path) -> None:
    """Rows with reasons, and a sentence that claims nothing."""
    summary = folder.write(tmp_path)
    labels = ("a", "b")
    summary["models"][0]["methods"] = [
        folder.out(x, "ours", "failed", f"{x} broke") for x in labels
    ]
    folder.save(tmp_path, summary)
    page = page_of(tmp_path)
    assert page.errors == []
    assert "No method could be compared with fewer steps: 2 failed." in words(page)
    assert "a broke" in page.text


def test_gaps_and_infinities_are_dashes(tmp_path: Path) -> None:
    """No nan, no None and no Infinity is ever printed or handed to the browser."""
    summary = folder.write(tmp_path)
    for number, method in enumerate(summary["models"][0]["methods"]):
        for spread in method["measures"].values():
            spread["mean"] = None if number % 2 else float("nan")
            spread["low"] = float("inf")
        method["macs"] = None
        method["seconds"] = float("nan")
        method["fid"] = None
    folder.save(tmp_path, summary)
    page = page_of(tmp_path)
    assert re.findall(r"\b(nan|None|inf|Infinity|NaN)\b", page.text) == []
    assert json.loads(page.data["charts"], parse_constant=pytest.fail)


def test_a_model_that_could_not_be_loaded_is_a_section_with_its_reason(tmp_path: Path) -> None:
    """The others are shown as ever."""
    summary = folder.write(tmp_path)
    summary["models"].append(
        {"name": "sd-1.5", "why": "no weights on this machine.", "methods": []}
    )
    folder.save(tmp_path, summary)
    page = page_of(tmp_path)
    assert page.errors == []
    assert "It was not run: no weights on this machine." in words(page)


def test_the_page_replaces_the_last_one_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure leaves the page of before, and no half one beside it."""
    folder.write(tmp_path)
    before = render(tmp_path).read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        render(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if "report" in p.name) == ["report.html"]


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    """No date, no order of a set."""
    folder.write(tmp_path)
    assert render(tmp_path).read_bytes() == render(tmp_path).read_bytes()


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(OptionError, match=r"holds no summary\.json: name the folder"):
        render(tmp_path)


def test_the_wheel_holds_templates_style_and_script(tmp_path: Path) -> None:
    """They are data of the package, and hatchling packs them."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {Path(n).name for n in zipfile.ZipFile(wheel).namelist() if "report/templates" in n}
    assert names == {"report.html", "report.css", "report.js"}
