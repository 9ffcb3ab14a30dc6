"""The command line `tgate-sampling`: generate pictures, compare methods, list plugins.

What it needs beside the core comes with the extra `cli`, and is imported when a command runs, so
that a bare installation says in one sentence what is missing::

    tgate-sampling generate "a large apple on a blue background" --policy fixed_step -o gate_step=10
    tgate-sampling compare --model emoji-sd --out out/demo
    tgate-sampling plugins
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from tgate_sampling.errors import MissingExtraError

__all__ = ["main"]

INSTALL: Final = "pip install 'tgate-sampling[cli]'"

#: Top-level modules of the extra `cli`, that of its extra `diffusers` included.
EXTRA: Final = frozenset(
    {"PIL", "accelerate", "diffusers", "numpy", "rich", "safetensors", "scipy", "skimage"}
    | {"tokenizers", "tqdm", "transformers", "typer"}
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: words after the program's name; the process's own by default.

    Returns:
        The exit code: 0 all well, 1 something failed, 2 bad input, 130 interrupted.
    """
    try:
        from tgate_plugins.cli.app import run

        return run(args)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        sys.stderr.write(f"tgate-sampling needs {missing}, which is not installed: {INSTALL}\n")
    except MissingExtraError as error:
        sys.stderr.write(f"tgate-sampling: {error}\n")
    return 1
