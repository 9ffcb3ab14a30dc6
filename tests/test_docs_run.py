"""The Python on the tutorial and the how-to pages runs as it stands, and prints what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import load_helper
from tgate_sampling._manager import manager

# diffusers' schedulers hand tensors to numpy 2, which asks for an `__array__` that torch has not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DOCS = Path(__file__).parents[1] / "docs"

#: Pages a reader follows from top to bottom.
PAGES = ["index.md", "tutorial.md", "k-diffusion.md"]
PAGES += sorted(str(path.relative_to(DOCS)) for path in DOCS.glob("how-to/*.md"))

#: All blocks that are not run, with the reason that stands above them.
NOT_RUN: dict[str, list[str]] = {}


@pytest.fixture(scope="module")
def pages() -> Any:
    """The module `tests/pages.py`; k-diffusion imports as it does where torchvision is there."""
    load_helper("kload.py")
    return load_helper("pages.py")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, and no plugin, policy or seed left over."""
    monkeypatch.chdir(tmp_path)
    found = manager()
    before = found.get_plugins()
    with torch.random.fork_rng(devices=[]):
        yield
    for plugin in found.get_plugins() - before:
        found.unregister(plugin)
    found.policies.forget("this session")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_from_top_to_bottom(name: str, pages: Any, session: None) -> None:
    """Every block, in order, in one session; where the page shows output, it is what is printed."""
    pages.run(DOCS / name)


def test_what_is_not_run_is_listed_here(pages: Any) -> None:
    """A block is left out with a reason, and this list is all of them."""
    found = {name: [b.why for b in pages.blocks((DOCS / name).read_text())] for name in PAGES}
    assert {n: [w for w in ws if w] for n, ws in found.items() if any(ws)} == NOT_RUN


def test_every_page_has_something_to_run(pages: Any) -> None:
    """A page whose blocks are not found would pass unseen."""
    run = {n: [b for b in pages.blocks((DOCS / n).read_text()) if not b.why] for n in PAGES}
    assert [name for name, blocks in run.items() if not blocks] == []


PLANTED = {
    "raises": ("```python\nraise KeyError\n```\n", KeyError),
    "prints something else": ("```python\nprint(1)\n```\n\n```text\n2\n```\n", AssertionError),
    "forgets a name": ("```python\nprint(torch)\n```\n", NameError),
    "warns": ("```python\nimport warnings\nwarnings.warn('old')\n```\n", UserWarning),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_wrong_page_is_caught(planted: str, pages: Any, tmp_path: Path) -> None:
    """A block that fails, or that prints something else than the page says."""
    text, error = PLANTED[planted]
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(error):
        pages.run(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("said", "printed", "expected"),
    [
        ("0.25 s", "0.26 s", True),
        ("0.25 s", "0.27 s", False),
        ("... s", "0.27 s", True),
        ("31 of 40", "32 of 40", False),
        ("(1.290x);", "(1.291x);", True),
        ("#..#", "#.##", False),
        ("one word", "one", False),
    ],
)
def test_what_counts_as_the_same(pages: Any, said: str, printed: str, expected: bool) -> None:
    """Times may differ, decimals in their last digit, and nothing else."""
    assert pages.same(said, printed) is expected
