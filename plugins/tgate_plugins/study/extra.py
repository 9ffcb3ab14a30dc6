"""What a study needs beside the command line, and the sentence when it is not there."""

from __future__ import annotations

import importlib.util
from typing import Final

from tgate_sampling.errors import MissingExtraError

#: Modules by the name that pip knows them by.
STUDY: Final = {
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "pyarrow": "pyarrow",
    "jinja2": "Jinja2",
    "plotly": "plotly",
    "torchmetrics": "torchmetrics",
}
RAY: Final = {"ray": "ray"}


def require(extra: str, modules: dict[str, str], what: str) -> None:
    """Refuse before any work is done, rather than at its end.

    Args:
        extra: of our distribution, which brings the modules.
        modules: by the name that pip knows them by.
        what: needs them, as a person typed it.

    Raises:
        MissingExtraError: with the install line.
    """
    missing = [name for module, name in modules.items() if not importlib.util.find_spec(module)]
    if missing:
        verb = "which is" if len(missing) == 1 else "which are"
        raise MissingExtraError(
            f"{what} needs {' and '.join(missing)}, {verb} not installed: "
            f"pip install 'tgate-sampling[{extra}]'"
        )
