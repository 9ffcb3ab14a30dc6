"""Tables in the docs come from the code, and a page that is behind is found."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from cogapp import Cog

import tgate_sampling as tg
from tgate_sampling._registry import Registry
from tgate_sampling.compose import Rule
from tgate_sampling.guidance import Estimator, hold
from tgate_sampling.hookspecs import hookspec
from tgate_sampling.policy import FunctionPolicy

DOCS = Path(__file__).parents[1] / "docs"
GENERATED = sorted(p for p in DOCS.glob("**/*.md") if "[[[cog" in p.read_text())

#: What cog answers where it would have to write, by its own documentation.
BEHIND = 5


@pytest.fixture(scope="module")
def made() -> Iterator[ModuleType]:
    """The package `docs/_generate`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("_generate")


def check(page: Path) -> int:
    """What `make docs-check` says of one page."""
    result: int = Cog().main(["cog", "--check", "-I", str(DOCS), "--verbosity=0", str(page)])
    return result


@dataclass(frozen=True)
class Made(tg.Policy):
    """Close every | other step (arXiv 1234.56789). More of it.

    Args:
        every: distance, in steps.
    """

    gates = ("cross", "guidance")
    signals = ("cross",)
    estimator = "linear"
    every: int = 2


def registry(name: str, factory: Any) -> Registry[Any]:
    found: Registry[Any] = Registry("policy")
    found.add(name, factory, owner="a test")
    return found


def test_pages_with_tables_are_found() -> None:
    """The pages that the brief of the docs names."""
    names = {str(p.relative_to(DOCS)) for p in GENERATED}
    assert names >= {"command-line.md", "examples.md", "hooks.md", "policies.md"}


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: page.name)
def test_a_page_is_not_behind(page: Path, made: ModuleType) -> None:
    """`make docs-generate` would change nothing."""
    assert check(page) == 0


def test_a_changed_docstring_makes_the_check_fail(
    made: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: one policy's first sentence."""
    from tgate_plugins.never import Never

    monkeypatch.setattr(Never, "__doc__", "Compute everything, twice.")
    assert check(DOCS / "policies.md") == BEHIND


def test_an_edited_table_makes_the_check_fail(made: ModuleType, tmp_path: Path) -> None:
    """Planted: one word between the markers."""
    page = tmp_path / "hooks.md"
    text = (DOCS / "hooks.md").read_text()
    page.write_text(text.replace("Give policies their names.", "Give policies names."))
    assert check(page) == BEHIND


def test_a_policy_becomes_a_row_and_a_section(made: ModuleType) -> None:
    """All of it from its class: gates in order, signals, estimator, first sentence, paper."""
    found = registry("made", Made)
    link = "[1234.56789](https://arxiv.org/abs/1234.56789)"
    sentence = "Close every &#124; other step (arXiv 1234.56789)."
    row = f"| [`made`](#made) | {sentence} | `guidance`, `cross` | `cross` | `linear` | {link} |"
    assert made.policy_table(found).splitlines()[2:] == [row]
    assert "| `every` | `2` | distance, in steps. |" in made.policy_sections(found)


def test_a_policy_made_of_a_function_becomes_a_row(made: ModuleType) -> None:
    """What was registered need not be a class."""
    value = FunctionPolicy(lambda step: True, "a lambda", gates=("guidance",))
    row = made.policy_table(registry("mine", lambda: value)).splitlines()[2]
    assert row.startswith("| [`mine`](#mine) |")
    assert "`guidance`" in row


def test_a_hook_becomes_a_row_and_a_section(made: ModuleType) -> None:
    """Signature, kind and first sentence; its arguments below."""

    @hookspec
    def tgate_made(run: Any, step: Any) -> None:
        """Say something. And more.

        Args:
            run: the run.
        """

    source = ModuleType("source")
    source.tgate_made = tgate_made  # type: ignore[attr-defined]
    row = "| `tgate_made(run, step)` | observes, in every run | Say something. |"
    assert made.hook_table(source).splitlines()[2:] == [row]
    assert "- `run`: the run." in made.hook_sections(source)


def test_an_estimator_becomes_a_row(made: ModuleType) -> None:
    """Its function's docstring, and what it keeps."""
    row = made.estimator_table({"made": Estimator("made", hold, memory=3, reads_level=True)})
    assert row.splitlines()[2].startswith("| `made` | Uncond := cond - delta")
    assert row.splitlines()[2].endswith("| 3 | yes |")


def test_a_rule_becomes_a_row(made: ModuleType) -> None:
    """As the command `compose` prints it."""
    table = made.rule_table([Rule("guidance", "made", "no", "of a reason")])
    assert table.splitlines()[2:] == ["| guidance | made | no | of a reason |"]


def test_a_command_becomes_a_section(made: ModuleType) -> None:
    """Usage, help, options with defaults, examples."""
    app = typer.Typer()

    @app.command(epilog="[bold]Examples[/bold]\n\ntgate-sampling made 1\n\nAnd a word.")
    def command(number: int, size: int = typer.Option(3, "--size", "-s", help="How big.")) -> None:
        """Make one."""

    @app.command()
    def other() -> None:
        """Make another."""

    text = made.command_sections(app)
    assert "## `command`\n\nMake one.\n" in text
    assert "tgate-sampling command [OPTIONS] NUMBER\n" in text
    assert "| `NUMBER` | required | - |\n| `--size`, `-s` | `3` | How big. |\n" in text
    assert "```console\ntgate-sampling made 1\n```\n\nAnd a word.\n" in text
    assert "## `other`" in text


def test_a_script_is_shown_as_it_stands(made: ModuleType, tmp_path: Path) -> None:
    """Code and all."""
    (tmp_path / "a.py").write_text("print(1)\n\n")
    assert made.script("a.py", tmp_path) == "```python\nprint(1)\n```\n"


def test_the_generators_own_examples_hold(made: ModuleType) -> None:
    """Their doctests are not where pytest looks for them."""
    names = [m.name for m in pkgutil.iter_modules(made.__path__)]
    results = [doctest.testmod(importlib.import_module(f"_generate.{name}")) for name in names]
    assert sum(r.failed for r in results) == 0
    assert sum(r.attempted for r in results) >= 10


def test_doctests_are_fenced_for_the_api_page(made: ModuleType) -> None:
    """Each paragraph of one, at its own depth; the rest stays."""
    fenced = importlib.import_module("_generate.doctests").fenced
    text = "Say.\n\nExample:\n    >>> 1 + 1\n    2\n\nMore.\n\n>>> 3\n3"
    code = "    ```pycon\n    >>> 1 + 1\n    2\n    ```\n"
    expected = f"Say.\n\nExample:\n{code}\nMore.\n\n```pycon\n>>> 3\n3\n```\n"
    assert fenced(text) == expected
