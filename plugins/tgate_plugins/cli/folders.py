"""The folder that takes what a command makes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tgate_sampling.errors import OptionError


def writable(folder: Path) -> Path:
    """The folder, made if it was not there, and tried: hours of work deserve that much.

    Raises:
        OptionError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise OptionError(
            f"--out {str(folder)!r} cannot be written to ({error.strerror or error}): give another "
            "folder."
        ) from error
