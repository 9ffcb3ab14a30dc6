"""The scripts in docs/examples, as a page shows them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples"


def script(name: str, folder: Path = FOLDER) -> str:
    """A script as a block of Python."""
    return f"```python\n{(folder / name).read_text().rstrip()}\n```\n"
