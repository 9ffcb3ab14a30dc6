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
    return "\n\n".join((*sections, _limits(facts), _LICENSE)) + "\n"


def _head(facts: dict[str, Any]) -> str:
    example, side = scenes.PROMPTS[0], facts["image_size"]
    about = _fill(
        f"A small latent text-to-image diffusion model in the shape of {facts['family']}. It "
        f'draws emoji scenes of {side} x {side} pixels from captions like "{example}". It is '
        f"{_ORIGINS['distilled' if 'teacher' in facts['training'] else 'scratch']} by `tgate_zoo` "
        "and made for studies of samplers and gates that need a real model on a CPU."
    )
    return f"""# {facts["name"]}

{about}

```python
from diffusers import {facts["pipeline"]}
from tgate_zoo.loader import model_path

pipeline = {facts["pipeline"]}.from_pretrained(model_path("{facts["name"]}"))
prompt = "{example}"
{_call(facts)}
```"""


_ORIGINS = {"scratch": "trained from scratch", "distilled": "distilled from `emoji-sd`"}


def _call(facts: dict[str, Any]) -> str:
    steps, guidance = facts["defaults"]["steps"], facts["defaults"]["guidance"]
    further = [f"{name}={value!r}" for name, value in facts.get("call", {}).items()]
    given = ["prompt", f"num_inference_steps={steps}", f"guidance_scale={guidance:g}", *further]
    line = f"image = pipeline({', '.join(given)}).images[0]"
    if len(line) <= 100:
        return line
    return "\n".join(["image = pipeline(", *(f"    {item}," for item in given), ").images[0]"])


def _architecture(facts: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {part['name']} | {part['shape']} | {part['parameters']:,} |" for part in facts["parts"]
    )
    scheduler = _fill(
        f"The scheduler is {facts['scheduler']} with noise prediction, `scaled_linear` betas from "
        "0.00085 to 0.012 over 1000 steps. Weights are stored in half precision; the folder takes "
        f"{facts['bytes']:,} bytes."
    )
    return f"""## Architecture

| part | shape | parameters |
| --- | --- | ---: |
{rows}

{scheduler}"""


def _fill(text: str) -> str:
    return textwrap.fill(text, 99, break_long_words=False, break_on_hyphens=False)


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
    story = _distilled(t) if "teacher" in t else _trained(t, facts["parts"])
    note = "\n\n" + _fill(t["note"]) if t.get("note") else ""
    return f"""## Training

```
python -m tgate_zoo train {facts["name"]} --out DIR --seed {t["seed"]}
```

{_fill(story)}

Hardware: {t["hardware"]}.{note}"""


_MINUTES = (
    "stopped by {limit} limit in minutes (`--minutes`), not by a number of steps, so another "
    "machine takes another number of steps. The saved weights are the running averages."
)


def _trained(t: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    denoiser, *texts = (_WORDS[part["name"]] for part in parts if part["name"] in _WORDS)
    encoders = "the text encoder" if len(texts) == 1 else "the text encoders"
    pool = f"{t['pool_scenes']:,} scenes were rendered once with seed {t['seed']}. "
    own = "vae_steps" in t
    vae = (
        f"The autoencoder trained for {t['vae_steps']:,} steps ({t['vae_samples']:,} samples, "
        f"{t['vae_minutes']:.0f} minutes), then the "
        if own
        else "The autoencoder is that of `emoji-sd`. On its latents the "
    )
    where = " on the latents" if own else ""
    limit = _MINUTES.format(limit="their" if own else "its")
    return (
        f"{pool}{vae}{denoiser} and {encoders} together {'' if own else 'trained '}for "
        f"{_amount(t)}{where}, with {t['drop_caption']:.0%} of the captions left empty for "
        f"classifier-free guidance and min-SNR loss weights (gamma {t['snr_limit']:g}). "
        f"{'Both stages were' if own else 'The stage was'} {limit}"
    )


_WORDS = {
    "unet": "UNet",
    "transformer": "transformer",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}


def _amount(t: dict[str, Any]) -> str:
    return (
        f"{t['steps']:,} steps of {t['batch']} ({t['samples']:,} samples, "
        f"{t['minutes']:.0f} minutes)"
    )


def _distilled(t: dict[str, Any]) -> str:
    low, high = t["guidance_range"]
    return (
        f"The autoencoder and the text encoder are those of `{t['teacher']}`, and the UNet starts "
        f"with the weights of its UNet, less the middle block. On {t['pool_scenes']:,} scenes "
        f"rendered with seed {t['seed']} it first learned the teacher's guided noise, with the "
        f"guidance scale as an input drawn from {low:g} to {high:g}, for {_amount(t['match'])}. "
        "Then latent consistency distillation (arXiv 2310.04378) with a pseudo-Huber loss and an "
        f"averaged target on a DDIM grid of {t['grid']} took {_amount(t)}. Both stages were "
        f"{_MINUTES.format(limit='their')}"
    )


def _measured(facts: dict[str, Any]) -> str:
    measured = facts.get("measured", {})
    if not measured:
        return "## Measured\n\nNot measured yet."
    parts = ["## Measured"]
    for side, title in (("held_out", "Held-out captions"), ("seen", "Trained captions")):
        if side in measured:
            parts.append(_measured_side(title, measured[side], facts["bars"], facts["scheduler"]))
    accuracy = "; ".join(f"{k} {v:.2%}" for k, v in facts["classifier"]["right"].items())
    reader = (
        "The object and the background are read by a small classifier trained on real renders "
        f"(`models/emoji-classifier`). On {facts['classifier']['scenes']:,} renders it did not "
        f"train on, it is right in: {accuracy}. A pair counts as right when the classifier finds "
        "both objects, each on its side."
    )
    parts.append(textwrap.fill(reader, 99))
    return "\n\n".join(parts)


def _measured_side(title: str, run: dict[str, Any], bars: dict[str, float], scheduler: str) -> str:
    rows = "\n".join(
        f"| {_KINDS[kind]} | {run['counts'][kind]} | {share:.1%} | "
        f"{format(bars[kind], '.0%') if kind in bars else ''} |"
        for kind, share in run["right"].items()
    )
    return f"""{title}: {run["captions"]} pictures, {run["steps"]} {scheduler} steps, guidance
{run["guidance"]:g}, seed {run["seed"]}.

```
{run["command"]}
```

| what | pictures | right | asked for |
| --- | ---: | ---: | ---: |
{rows}"""


def _limits(facts: dict[str, Any]) -> str:
    trial = facts["name"] == "emoji-sd"
    return _LIMITS.format(order=_TRIAL if trial else "")


_TRIAL = """ A trial that had "right of" as well drew both objects but in a random order after
  226,000 samples, so the grammar has the one relation."""

_LIMITS = """## Limits

- It knows the words of the caption grammar (`tgate_zoo.scenes.vocabulary`) and no others; a prompt
  holds 16 tokens.
- Pictures have 32 pixels a side; small objects have 15 of them and lose detail.
- Only the captions' layouts are known: one object in the middle or two side by side, in the order
  "left of".{order}
- A yellow object on yellow, or a white one on white, comes out faint, as it does in the renders.
- The bars ask for the right object and background, not for fine detail: the autoencoder blurs
  stripes and faces of small objects, and the classifier still names objects that a person finds
  blurred or too faint to see."""

_LICENSE = """## License

Apache-2.0. The emoji glyphs are Noto Emoji by Google; the font is under the SIL Open Font License
1.1 and its pictures under the Apache License 2.0. The model was trained on rendered pictures
only; no part of the font is in this folder."""
