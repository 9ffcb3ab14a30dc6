"""Captioned emoji scenes: the grammar of captions, the held-out split, and the renderer.

Drawing a caption needs neither the font nor an image library; only `render` and `load_glyphs`
touch Pillow, and they import it when called.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGE_SIZE = 32

FONT_PATH = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_PACKAGE = "fonts-noto-color-emoji"
# The font holds bitmaps of this one size only; Pillow refuses every other.
FONT_SIZE = 109

OBJECTS: Mapping[str, str] = {
    "apple": "\U0001f34e",
    "banana": "\U0001f34c",
    "burger": "\U0001f354",
    "pizza": "\U0001f355",
    "donut": "\U0001f369",
    "cake": "\U0001f382",
    "mushroom": "\U0001f344",
    "cactus": "\U0001f335",
    "tree": "\U0001f333",
    "sunflower": "\U0001f33b",
    "frog": "\U0001f438",
    "cat": "\U0001f431",
    "dog": "\U0001f436",
    "penguin": "\U0001f427",
    "owl": "\U0001f989",
    "fish": "\U0001f41f",
    "butterfly": "\U0001f98b",
    "octopus": "\U0001f419",
    "car": "\U0001f697",
    "bus": "\U0001f68c",
    "rocket": "\U0001f680",
    "boat": "\u26f5",
    "house": "\U0001f3e0",
    "ball": "\u26bd",
    "guitar": "\U0001f3b8",
    "umbrella": "\u2614",
    "clock": "\u23f0",
    "crown": "\U0001f451",
    "ghost": "\U0001f47b",
    "robot": "\U0001f916",
    "star": "\u2b50",
    "heart": "\u2764",
}

BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (240, 240, 240),
    "black": (28, 28, 30),
    "gray": (138, 140, 142),
    "pink": (244, 164, 192),
    "yellow": (244, 208, 72),
    "green": (84, 168, 92),
    "blue": (72, 136, 228),
    "purple": (136, 84, 188),
}

SIZES: Mapping[str, float] = {"small": 0.46, "large": 0.82}
PAIR_SCALE = 0.46

OBJECT_NAMES: tuple[str, ...] = tuple(OBJECTS)
BACKGROUND_NAMES: tuple[str, ...] = tuple(BACKGROUNDS)

# Amplitudes of the jitter: position and size as fractions of the image side, shade as a factor.
_POSITION_JITTER = 0.035
_SCALE_JITTER = 0.05
_SHADE_JITTER = 0.05


class FontMissingError(RuntimeError):
    """The colour emoji font that the renderer draws with is not installed."""


@dataclass(frozen=True)
class Scene:
    """One or two objects on a plain background.

    A single object has a `size`; in a pair the `first` object stands left of the `second`.
    """

    first: str
    background: str
    size: str | None = None
    second: str | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects from left to right."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def caption(self) -> str:
        """The scene in words, for example "a large apple on a blue background"."""
        ground = f"on a {self.background} background"
        if self.second is None:
            return f"a {self.size} {self.first} {ground}"
        first, second = _with_article(self.first), _with_article(self.second)
        return f"{first} left of {second} {ground}"

    @property
    def held_out(self) -> bool:
        """True where any object of the scene is never trained on this background."""
        return any(is_held_out(name, self.background) for name in self.objects)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def is_held_out(name: str, background: str) -> bool:
    """True for the two backgrounds of every object that training never shows it on.

    The rule shifts with the object's place in the list, so that every background is held out for
    as many objects as any other and no two backgrounds are always held out together.
    """
    i, j = OBJECT_NAMES.index(name), BACKGROUND_NAMES.index(background)
    count = len(BACKGROUND_NAMES)
    return j in (i % count, (i + 3 + i // count) % count)


def single_scenes(held_out: bool) -> list[Scene]:
    """Every single-object scene of one side of the split, in a fixed order."""
    return [
        scene
        for name in OBJECT_NAMES
        for background in BACKGROUND_NAMES
        for size in SIZES
        if (scene := Scene(name, background, size=size)).held_out == held_out
    ]


def pair_scenes(held_out: bool) -> list[Scene]:
    """Every two-object scene of one side of the split, in a fixed order."""
    return [
        scene
        for first in OBJECT_NAMES
        for second in OBJECT_NAMES
        for background in BACKGROUND_NAMES
        if first != second
        and (scene := Scene(first, background, second=second)).held_out == held_out
    ]


def draw_scenes(
    count: int, seed: int, *, held_out: bool = False, pair_share: float = 0.4
) -> list[Scene]:
    """`count` scenes of one side of the split, drawn by `seed`; about `pair_share` are pairs."""
    rng = random.Random(seed)
    singles, pairs = single_scenes(held_out), pair_scenes(held_out)
    return [rng.choice(pairs if rng.random() < pair_share else singles) for _ in range(count)]


def parse_caption(caption: str) -> Scene:
    """The scene that a caption of the grammar describes.

    Raises ValueError when the caption is not of the grammar.
    """
    match caption.split():
        case ["a", size, name, "on", "a", ground, "background"] if size in SIZES:
            scene = Scene(name, ground, size=size)
        case [_, first, "left", "of", _, second, "on", "a", ground, "background"]:
            scene = Scene(first, ground, second=second)
        case _:
            raise ValueError(_grammar_hint(caption))
    known = set(scene.objects) <= set(OBJECT_NAMES) and scene.background in BACKGROUNDS
    if not known or scene.caption != caption:
        raise ValueError(_grammar_hint(caption))
    return scene


def _grammar_hint(caption: str) -> str:
    return (
        f"{caption!r} is not a caption of the emoji scenes; write it like "
        f"{single_scenes(False)[0].caption!r} or {pair_scenes(False)[0].caption!r}."
    )


def vocabulary() -> list[str]:
    """Every word a caption can hold, sorted."""
    glue = {"a", "an", "left", "of", "on", "background"}
    return sorted(glue | {*OBJECT_NAMES, *BACKGROUND_NAMES, *SIZES})


def study_prompts() -> tuple[str, ...]:
    """The 64 fixed prompts of the studies: 24 seen singles, 24 held out, 8 and 8 pairs."""
    rng = random.Random(64)
    seen, unseen = single_scenes(False), single_scenes(True)
    parts = (
        rng.sample(seen, 24),
        rng.sample(unseen, 24),
        rng.sample(pair_scenes(False), 8),
        rng.sample(pair_scenes(True), 8),
    )
    return tuple(scene.caption for part in parts for scene in part)


PROMPTS: tuple[str, ...] = study_prompts()


def load_glyphs(font: Path = FONT_PATH) -> dict[str, Image]:
    """Every object's glyph as an RGBA picture cut to its ink.

    Raises FontMissingError when the font is not there.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not font.is_file():
        raise FontMissingError(
            f"The emoji font was looked for at {font} and is not there; run "
            f"`apt-get install {FONT_PACKAGE}` or give its path with --font."
        )
    face = ImageFont.truetype(str(font), FONT_SIZE)
    glyphs = {}
    for name, text in OBJECTS.items():
        canvas = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(canvas).text((10, 10), text, font=face, embedded_color=True)
        glyphs[name] = canvas.crop(canvas.getbbox())
    return glyphs


def render(
    scene: Scene, rng: random.Random, glyphs: Mapping[str, Image], side: int = IMAGE_SIZE
) -> NDArray[np.uint8]:
    """Draw a scene with small jitter in position, size and shade.

    Returns an array of shape (side, side, 3). The same scene and generator state give the same
    picture.
    """
    import numpy as np
    from PIL import Image

    red, green, blue = (_shaded(channel, rng) for channel in BACKGROUNDS[scene.background])
    canvas = Image.new("RGB", (side, side), (red, green, blue))
    names = scene.objects
    scale = PAIR_SCALE if len(names) == 2 else SIZES[scene.size or "large"]
    for name, centre in zip(names, (0.26, 0.74) if len(names) == 2 else (0.5,), strict=True):
        _paste(canvas, glyphs[name], centre, scale, rng)
    return np.asarray(canvas)


def _shaded(channel: int, rng: random.Random) -> int:
    return min(255, max(0, round(channel * (1 + rng.uniform(-_SHADE_JITTER, _SHADE_JITTER)))))


def _paste(canvas: Image, glyph: Image, centre: float, scale: float, rng: random.Random) -> None:
    """Put a glyph at (centre, 0.5) of the canvas; its longer side is `scale` of the canvas."""
    from PIL import Image

    side = canvas.width
    longest = side * scale * (1 + rng.uniform(-_SCALE_JITTER, _SCALE_JITTER))
    ratio = longest / max(glyph.size)
    width, height = (max(1, round(edge * ratio)) for edge in glyph.size)
    small = glyph.resize((width, height), Image.Resampling.LANCZOS)
    x = side * (centre + rng.uniform(-_POSITION_JITTER, _POSITION_JITTER)) - width / 2
    y = side * (0.5 + rng.uniform(-_POSITION_JITTER, _POSITION_JITTER)) - height / 2
    canvas.paste(small, (round(x), round(y)), small)
