"""The docs name what the code has."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tgate_plugins.cli.app import app
from tgate_sampling import hookspecs
from tgate_sampling._manager import new_manager

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
HOOKS = sorted(n for n in vars(hookspecs) if n.startswith(hookspecs.PREFIX))


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_stands_in_the_docs_with_its_signature(hook: str) -> None:
    """docs/hooks.md shows every hook exactly as it is called."""
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in (ROOT / "docs" / "hooks.md").read_text()


def test_the_docs_name_no_hook_that_does_not_exist() -> None:
    """A renamed hook does not live on in the docs."""
    named = re.findall(r"`(tgate_\w+)\(", (ROOT / "docs" / "hooks.md").read_text())
    assert sorted(set(named)) == HOOKS


def test_each_policy_stands_in_the_readme() -> None:
    """README names every policy we ship."""
    text = (ROOT / "README.md").read_text()
    assert [p for p in new_manager().policies if f"`{p}" not in text] == []


def test_each_dependency_has_its_reason() -> None:
    """docs/why.md says why each package in pyproject.toml is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    # A group may also name another group.
    written = [r for requirements in lists for r in requirements if isinstance(r, str)]
    names = {re.split(r"[<>=\[]", r)[0] for r in written}
    why = (ROOT / "docs" / "why.md").read_text()
    assert sorted(n for n in names - {"tgate-sampling"} if n not in why) == []


LINK = re.compile(r"(?<!\\)\]\((?!https?://)([^)\s]*)\)")
CALL = re.compile(r"(?:^|`)(tgate-sampling [a-z][^`\n]*)", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub and mkdocs make of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def dead_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    dead = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        # mkdocstrings makes the headings of the API page.
        unknown = anchor and target.name != "api.md" and anchor not in anchors(target)
        if not target.exists() or unknown:
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links between pages work on GitHub, headings included."""
    assert dead_links(page) == []


def test_a_dead_link_is_caught(tmp_path: Path) -> None:
    """A file that is not there, and a heading that is not there."""
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n[1](no.md) [2](#a-b-c) [3](page.md#no) [4](https://x.org)\n")
    assert dead_links(page) == ["no.md", "page.md#no"]


def parse(line: str) -> None:
    """Parse a line of the command line as a shell and typer would, and run nothing."""
    _, name, *words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(app)
    given = [word for word in words if not word.startswith("[")]  # "[OPTIONS]", in a usage
    command.commands[name].make_context(name, given)


def test_every_command_in_the_docs_is_one() -> None:
    """Each `tgate-sampling ...` on a page has a command's name, and its options exist."""
    found = [call for page in PAGES for call in CALL.findall(page.read_text())]
    assert len(found) > 10
    for call in found:
        parse(call)


def test_a_command_with_a_wrong_option_is_caught() -> None:
    """What the check above would raise."""
    with pytest.raises(Exception, match="--polcy"):
        parse("tgate-sampling compare --polcy never")


def test_every_make_target_in_the_docs_is_one() -> None:
    """README and CONTRIBUTING name targets that the Makefile has."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for p in PAGES for t in re.findall(r"(?:^|`)make ([a-z-]+)", p.read_text(), re.M)}
    assert {"demo", "test", "docs"} <= named
    assert named - targets == set()


def test_every_page_stands_in_the_nav() -> None:
    """No page is hidden; the changelog comes from the root."""
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")}
    assert sorted(listed) == sorted(pages | {"changelog.md"})


def test_what_runs_before_a_commit_is_what_make_runs() -> None:
    """.pre-commit-config.yaml needs no repository of others, and holds each tool of `make lint`."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    recipe = re.findall(r"^lint:.*?\n\n", (ROOT / "Makefile").read_text(), re.M | re.DOTALL)[0]
    tools = re.findall(r"\$\(BIN\)/([\w-]+)( check| format|)", recipe)
    commands = " ".join(hook["entry"] for hook in hooks)
    assert [tool for tool in tools if f".venv/bin/{''.join(tool)}" not in commands] == []
    assert "make docs-check" in commands
