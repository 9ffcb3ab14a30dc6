"""The model card: facts as card.json, and README.md written from them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from tgate_zoo import scenes

FACTS = "card.json"
CARD = "README.md"

_KINDS = {
    "background": "background, all scenes",
    "single": "object, single-object scenes",
    "small": "object, small",
    "large": "object, large",
    "pair": "both objects in their places, two-object scenes",
}


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a model folder; none when nothing is written yet."""
    path = folder / FACTS
    facts: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return facts


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write card.json and the README.md that says the same in words."""
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    (folder / CARD).write_text(render_card(facts))


def render_card(facts: dict[str, Any]) -> str:
    """The model card of an emoji diffusion model in Markdown."""
    sections = (_head(facts), _architecture(facts), _data(), _training(facts), _measured(facts))
    return "\n\n".join((*sections, _LIMITS, _LICENSE)) + "\n"


def _head(facts: dict[str, Any]) -> str:
    example = scenes.PROMPTS[0]
    return f"""# {facts["name"]}

A small latent text-to-image diffusion model in the shape of Stable Diffusion. It draws emoji
scenes of {facts["image_size"]} x {facts["image_size"]} pixels from captions like
"{example}". It is trained from scratch by `tgate_zoo` and made for
studies of samplers and gates that need a real model on a CPU.

```python
from diffusers import StableDiffusionPipeline
from tgate_zoo.loader import model_path

pipeline = StableDiffusionPipeline.from_pretrained(model_path("{facts["name"]}"))
prompt = "{example}"
image = pipeline(prompt, num_inference_steps=25, guidance_scale=4).images[0]
```"""


def _architecture(facts: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {part['name']} | {part['shape']} | {part['parameters']:,} |" for part in facts["parts"]
    )
    return f"""## Architecture

| part | shape | parameters |
| --- | --- | ---: |
{rows}

The scheduler is DDIM with noise prediction, `scaled_linear` betas from 0.00085 to 0.012 over
1000 steps. Weights are stored in half precision; the folder takes
{facts["bytes"]:,} bytes."""


def _data() -> str:
    objects = _bullet(f"{len(scenes.OBJECTS)} objects: {', '.join(scenes.OBJECT_NAMES)};")
    grounds = _bullet(f"{len(scenes.BACKGROUNDS)} backgrounds: {', '.join(scenes.BACKGROUNDS)};")
    seen, unseen = len(scenes.single_scenes(False)), len(scenes.single_scenes(True))
    return f"""## Data

Scenes drawn by the recipe with the colour glyphs of Debian's `{scenes.FONT_PACKAGE}`:

{objects}
{grounds}
- one object, small or large ("{scenes.single_scenes(False)[0].caption}"), or two side by side
  ("{scenes.pair_scenes(False)[0].caption}");
- position, size and shade vary a little from picture to picture.

Every object has two backgrounds it is never trained on, neither alone nor in a pair
(`tgate_zoo.scenes.is_held_out`): {unseen} single-object captions are held out and {seen} are
trained on."""


def _bullet(text: str) -> str:
    return textwrap.fill(text, 95, initial_indent="- ", subsequent_indent="  ")


def _training(facts: dict[str, Any]) -> str:
    t = facts["training"]
    note = "\n\n" + textwrap.fill(t["note"], 99) if t.get("note") else ""
    return f"""## Training

```
python -m tgate_zoo train {facts["name"]} --out DIR --seed {t["seed"]}
```

{t["pool_scenes"]:,} scenes were rendered once with seed {t["seed"]}. The autoencoder trained for
{t["vae_steps"]:,} steps ({t["vae_samples"]:,} samples, {t["vae_minutes"]:.0f} minutes), then the
UNet and the text encoder together for {t["steps"]:,} steps of {t["batch"]}
({t["samples"]:,} samples, {t["minutes"]:.0f} minutes) on the latents, with {t["drop_caption"]:.0%}
of the captions left empty for classifier-free guidance and min-SNR loss weights (gamma
{t["snr_limit"]:g}). Both stages were stopped by their limit in minutes (`--minutes`), not by a
number of steps, so another machine takes another number of steps. The saved weights are the
running averages.

Hardware: {t["hardware"]}.{note}"""


def _measured(facts: dict[str, Any]) -> str:
    measured = facts.get("measured", {})
    if not measured:
        return "## Measured\n\nNot measured yet."
    parts = ["## Measured"]
    for side, title in (("held_out", "Held-out captions"), ("seen", "Trained captions")):
        if side in measured:
            parts.append(_measured_side(title, measured[side], facts["bars"]))
    accuracy = "; ".join(f"{k} {v:.2%}" for k, v in facts["classifier"]["right"].items())
    reader = (
        "The object and the background are read by a small classifier trained on real renders "
        f"(`models/emoji-classifier`). On {facts['classifier']['scenes']:,} renders it did not "
        f"train on, it is right in: {accuracy}. A pair counts as right when the classifier finds "
        "both objects, each on its side."
    )
    parts.append(textwrap.fill(reader, 99))
    return "\n\n".join(parts)


def _measured_side(title: str, run: dict[str, Any], bars: dict[str, float]) -> str:
    rows = "\n".join(
        f"| {_KINDS[kind]} | {run['counts'][kind]} | {share:.1%} | "
        f"{format(bars[kind], '.0%') if kind in bars else ''} |"
        for kind, share in run["right"].items()
    )
    return f"""{title}: {run["captions"]} pictures, {run["steps"]} DDIM steps, guidance
{run["guidance"]:g}, seed {run["seed"]}.

```
{run["command"]}
```

| what | pictures | right | asked for |
| --- | ---: | ---: | ---: |
{rows}"""


_LIMITS = """## Limits

- It knows the words of the caption grammar (`tgate_zoo.scenes.vocabulary`) and no others; a prompt
  holds 16 tokens.
- Pictures have 32 pixels a side; small objects have 15 of them and lose detail.
- Only the captions' layouts are known: one object in the middle or two side by side, in the order
  "left of". A trial that had "right of" as well drew both objects but in a random order after
  226,000 samples, so the grammar has the one relation.
- A yellow object on yellow, or a white one on white, comes out faint, as it does in the renders.
- The bars ask for the right object and background, not for fine detail: the autoencoder blurs
  stripes and faces of small objects, and the classifier still names objects that a person finds
  blurred or too faint to see."""

_LICENSE = """## License

Apache-2.0. The emoji glyphs are Noto Emoji by Google; the font is under the SIL Open Font License
1.1 and its pictures under the Apache License 2.0. The model was trained on rendered pictures
only; no part of the font is in this folder."""
