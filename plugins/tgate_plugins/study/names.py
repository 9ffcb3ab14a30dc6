"""Names of pictures and files: the same for the same work, on every machine."""

from __future__ import annotations

import functools
import re
import zlib
from typing import Final

#: Most file systems take 255 bytes; a temporary file's ending has to fit as well.
LONGEST: Final = 120


@functools.cache  # asked for each picture at each look at the plan
def slug(text: str) -> str:
    """The text as the name of a file; different texts have different ones.

    >>> slug("ours policy=interleave every=3"), slug("emoji-sd")
    ('ours,policy=interleave,every=3', 'emoji-sd')
    >>> slug("./my sd")
    'my,sd-f501bf22'
    """
    plain = text.replace(" ", ",")
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", plain).strip("-.")[:LONGEST]
    if safe and safe == plain and "," not in text:
        return safe
    return f"{safe}-{zlib.crc32(text.encode()):08x}"


def picture_id(model: str, label: str, prompt: int, seed: int) -> str:
    """Of a picture's record."""
    return f"picture/{slug(model)}/{slug(label)}/{prompt}-{seed}"


def picture_file(model: str, label: str, prompt: int, seed: int) -> str:
    """Of a picture, from the study's folder."""
    return f"images/{slug(model)}/{slug(label)}/{prompt}-{seed}.png"
