"""Command line of the zoo: `python -m tgate_zoo train NAME`, `... evaluate NAME`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from tgate_zoo.grid import save_grid
from tgate_zoo.untyped import progress_bar

if TYPE_CHECKING:
    from tgate_zoo.evaluate import Verdict

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The project's own models.")
console = Console(soft_wrap=True)

EVERY = "all"

Name = Annotated[str, typer.Argument(help="Which model, for example emoji-sd.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads to use.")]


def _fail(message: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(message, style="red", markup=False)
    raise typer.Exit(2)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Which model, for example emoji-sd, or all.")],
    out: Annotated[Path, typer.Option(help="Folder that takes the finished models.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder for caches and checkpoints; OUT/work when left out.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="One stage only, for example export; all when left out.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop the stage after so long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Stop the stage after so many steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of scenes, weights and batches.")] = 0,
    threads: Threads = 1,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, if elsewhere.")] = None,
    note: Annotated[str, typer.Option(help="A remark for the model card.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the checkpoint, or start anew.")
    ] = True,
) -> None:
    """Train a model of the zoo, stage by stage, or all of them one after the other."""
    import torch

    from tgate_zoo.recipe.place import Recipe
    from tgate_zoo.recipe.stages import RECIPES, is_training, run_stage
    from tgate_zoo.scenes import FONT_PATH, FontMissingError

    if name != EVERY and name not in RECIPES:
        known = ", ".join((*RECIPES, EVERY))
        _fail(f"There is no recipe for {name!r}; the zoo can train {known}.")
    torch.set_num_threads(threads)
    for model in RECIPES if name == EVERY else (name,):
        for current in (stage,) if stage else RECIPES[model]:
            limited = stage is not None or is_training(current)
            recipe = Recipe(
                out=out,
                work=work or out / "work",
                seed=seed,
                font=font or FONT_PATH,
                minutes=minutes if limited else None,
                steps=steps if limited else None,
                resume=resume,
                note=note,
                say=lambda line: console.print(line, markup=False),
            )
            try:
                run_stage(recipe, current, model)
            except (FontMissingError, FileNotFoundError, ValueError) as error:
                _fail(str(error))


@app.command()
def evaluate(
    name: Name,
    model: Annotated[
        Path | None, typer.Option(help="Pipeline folder, when not the zoo's own.")
    ] = None,
    classifier: Annotated[
        Path | None, typer.Option(help="Classifier folder, when not the zoo's own.")
    ] = None,
    captions: Annotated[int, typer.Option(min=2, max=512, help="How many captions.")] = 256,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampler steps; the model's own when left out.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; the model's own when left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of captions and noise.")] = 0,
    seen: Annotated[bool, typer.Option(help="Measure trained captions instead.")] = False,
    threads: Threads = 1,
    grid: Annotated[Path | None, typer.Option(help="Also save the pictures as one PNG.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the numbers into the model's card.")
    ] = False,
) -> None:
    """Measure how often a model draws the asked object on the asked background."""
    import torch

    from tgate_zoo import evaluate as measure
    from tgate_zoo.classifier import load_classifier
    from tgate_zoo.loader import MODELS, UnknownModelError, defaults, load

    torch.set_num_threads(threads)
    try:
        folder = model or MODELS / name
        pipeline = load(folder.name, folder=folder.parent)
        own = defaults(folder.name, folder=folder.parent)
        readers = classifier or MODELS / "emoji-classifier"
        reader = load_classifier(readers)
    except (UnknownModelError, FileNotFoundError, ValueError) as error:
        _fail(str(error))
    steps = own["steps"] if steps is None else steps
    guidance = own["guidance"] if guidance is None else guidance
    drawn = (measure.seen_scenes if seen else measure.held_out_scenes)(captions, seed)
    with progress_bar(len(drawn), 0, "pictures") as bar:
        pictures = measure.generate(
            pipeline,
            [scene.caption for scene in drawn],
            steps=steps,
            guidance=guidance,
            seed=seed,
            on_batch=bar.update,
        )
    verdicts = measure.judge(reader, drawn, pictures)
    console.print(_share_table(verdicts, measure.bars_of(folder.name)))
    if grid is not None:
        save_grid(pictures, grid)
    if record:
        settings = {"captions": captions, "steps": steps, "guidance": guidance, "seed": seed}
        measure.record(folder, readers, "seen" if seen else "held_out", settings, verdicts)


def _share_table(verdicts: Sequence[Verdict], bars: Mapping[str, float]) -> Table:
    from tgate_zoo.evaluate import count_kinds, summarize

    table, counts = Table("what", "pictures", "right", "asked for"), count_kinds(verdicts)
    for kind, share in summarize(verdicts).items():
        bar = f"{bars[kind]:.0%}" if kind in bars else ""
        table.add_row(kind, str(counts[kind]), f"{share:.1%}", bar)
    return table


if __name__ == "__main__":
    app()
