"""The words of the command line: commands, options, help; the work is done elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tgate_plugins.cli.screen import complain, console
from tgate_plugins.cli.values import parse_size
from tgate_sampling.errors import MissingExtraError, TGateError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Sample with gates: see what a policy saves, and what it costs in the picture.",
)

#: Older typers build on click, newer ones carry it along: the base is found, not imported.
USAGE_ERROR: Final[Any] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)

GENERATE_EXAMPLES = """\
[bold]Examples[/bold]

tgate-sampling generate "a large apple on a blue background"

tgate-sampling generate "a small owl on a pink background" --policy fixed_step -o gate_step=10

tgate-sampling generate "a cat left of a dog on a green background" --policy tgate --num-images 4
"""

COMPARE_EXAMPLES = """\
[bold]Examples[/bold]

tgate-sampling compare --out out/demo

tgate-sampling compare --policy fixed_step:gate_step=10,refresh=2 --policy cosine_delta

tgate-sampling compare "a red fox in the snow" --model ./my-sd --sampler dpmpp-2m-karras --seeds 4

A gated method is worth having where it beats [italic]fewer steps[/italic] at no higher cost: each
one is set beside such a run. The exit code is 1 if any run failed.
"""

STUDY_EXAMPLES = """\
[bold]Examples[/bold]

tgate-sampling study --suite zoo --quick --workers 2 --out out/quick

tgate-sampling study my-study.yaml --out out/mine

tgate-sampling study --model ./my-sd --prompt "a red fox in the snow" --method ours --seeds 4

tgate-sampling study --suite published --engine ray --address auto --out out/published

tgate-sampling study --resume --out out/mine

A study that was killed goes on where it stopped: type the same again. The exit code is 1 if any
picture failed; a method that cannot run on a model is no failure, but a row that says why.
"""

PLUGINS_EXAMPLES = """\
[bold]Examples[/bold]

tgate-sampling plugins

tgate-sampling plugins --json
"""

Model = Annotated[
    str, typer.Option(help="A zoo model, a folder of a diffusers pipeline, or a hub id.")
]
Steps = Annotated[int, typer.Option(min=1, help="Steps of the sampler.")]
GuidanceScale = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is none.")]
Sampler = Annotated[
    str | None,
    typer.Option(help="ddim, euler, euler-a, dpmpp-2m-karras ...; the model's own if left out."),
]
NegativePrompt = Annotated[str | None, typer.Option(help="What shall not be in the picture.")]
Size = Annotated[
    str | None, typer.Option(help="512, or 512x768 (width x height); else the model's own.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, bfloat16, or auto.")]
Out = Annotated[Path, typer.Option(help="Folder for what is made.")]


def run(args: Sequence[str] | None = None) -> int:
    """Run a command; turns what users get wrong into one sentence.

    Args:
        args: words after the program's name; the process's own by default.

    Returns:
        The exit code.
    """
    words = None if args is None else list(args)
    try:
        code = app(words, prog_name="tgate-sampling", standalone_mode=False)
    except USAGE_ERROR as error:
        if message := error.format_message():  # none where the help was shown instead
            complain(message)
        return int(error.exit_code)
    except MissingExtraError:
        raise
    except TGateError as error:
        complain(str(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return int(code or 0)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tgate-sampling {version('tgate-sampling')}")
        raise typer.Exit


@app.callback()
def tgate_sampling(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Sample with gates: see what a policy saves, and what it costs in the picture."""


@app.command(epilog=GENERATE_EXAMPLES)
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw.")],
    model: Model = "emoji-sd",
    policy: Annotated[
        str | None, typer.Option(help="See `tgate-sampling plugins`; the library's own default.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Of the policy; repeatable."),
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="Fills a closed guidance gate: hold, none ...")
    ] = None,
    refresh: Annotated[
        int | None, typer.Option(help="Look at both branches again every so many steps.")
    ] = None,
    merge: Annotated[
        str | None, typer.Option(help="Of kept attention outputs: cond, mean, both.")
    ] = None,
    steps: Steps = 25,
    guidance_scale: GuidanceScale = 4.0,
    seed: Annotated[int, typer.Option(help="Of the first picture; the next has the next.")] = 0,
    num_images: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 1,
    sampler: Sampler = None,
    negative_prompt: NegativePrompt = None,
    size: Size = None,
    out: Out = Path("out"),
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Draw prompts with a policy; write pictures and report.json."""
    from tgate_plugins.cli import generate as verb

    settings = verb.Settings(
        prompts=tuple(prompts),
        model=model,
        policy=policy,
        options=tuple(option or ()),
        estimator=estimator,
        refresh=refresh,
        merge=merge,
        steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        num_images=num_images,
        sampler=sampler,
        negative_prompt=negative_prompt,
        size=parse_size(size) if size else None,
        out=out,
        device=device,
        dtype=dtype,
    )
    raise typer.Exit(verb.generate(settings, console()))


@app.command(epilog=COMPARE_EXAMPLES)
def compare(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...", help="What to draw; a handful that suit the model if none."
        ),
    ] = None,
    model: Model = "emoji-sd",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help="Repeatable; estimator, refresh and merge are keys too. Five if left out.",
        ),
    ] = None,
    steps: Steps = 25,
    guidance_scale: GuidanceScale = 4.0,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures of each prompt and method.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    sampler: Sampler = None,
    negative_prompt: NegativePrompt = None,
    size: Size = None,
    reference_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure against the ungated picture of so many steps; --steps if left out."
        ),
    ] = None,
    out: Out = Path("out"),
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Set policies beside the ungated run and beside fewer steps of no higher cost."""
    from tgate_plugins.cli import compare as verb
    from tgate_plugins.cli.trial import Settings

    settings = Settings(
        prompts=tuple(prompts or ()),
        model=model,
        policies=tuple(policy or ()),
        steps=steps,
        guidance_scale=guidance_scale,
        seeds=seeds,
        seed=seed,
        sampler=sampler,
        negative_prompt=negative_prompt,
        size=parse_size(size) if size else None,
        reference_steps=reference_steps,
        out=out,
        device=device,
        dtype=dtype,
    )
    raise typer.Exit(verb.compare(settings, console(), console(stderr=True)))


@app.command(epilog=STUDY_EXAMPLES)
def study(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC.yaml]", help="What to do, as a file.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="A ready spec: zoo, or published (you need its weights).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The first five prompts, one seed, a nearer reference.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Zoo name, folder or hub id; of a spec, those to take. Repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]", help="Repeatable; all that suit the model if left out."
        ),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; repeatable.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE.txt", help="The same as a file, one a line.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Pictures of each prompt and method.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler; 25.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Classifier-free guidance; 4. 1 is none.")
    ] = None,
    converged_steps: Annotated[
        int | None, typer.Option(min=0, help="Of the converged reference; 200. 0 is none.")
    ] = None,
    sampler: Sampler = None,
    negative_prompt: NegativePrompt = None,
    size: Size = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Repeatable; all that can be measured if left out.")
    ] = None,
    fid: Annotated[
        int | None,
        typer.Option(min=0, help="Pictures of each method for FID, 2000 or more; zoo models only."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Where workers live: local, or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, as auto; one is started if left out.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many; 1, or with ray one a device.")
    ] = None,
    out: Out = Path("out/study"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study in --out, whatever it is.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Throw away another study that is in --out.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16, bfloat16, or auto.")] = None,
) -> None:
    """Set many methods beside each other on many models; pictures, numbers and report.html."""
    from tgate_plugins.study import command as verb

    said = {
        "methods": method,
        "prompts": prompt,
        "seeds": seeds,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "converged_steps": converged_steps,
        "sampler": sampler,
        "negative_prompt": negative_prompt,
        "size": size,
        "metrics": metric,
        "fid": fid,
        "device": device,
        "dtype": dtype,
    }
    words = verb.Words(
        out=out,
        spec=spec,
        suite=suite,
        models=tuple(model or ()),
        prompts_file=prompts,
        fields={name: value for name, value in said.items() if value is not None},
        place={
            "engine": engine,
            "address": address,
            "workers": workers,
            "force": force,
            "retry": retry_failed,
        },
        quick=quick,
        resume=resume,
    )
    raise typer.Exit(verb.study(words, console(), console(stderr=True)))


@app.command(epilog=PLUGINS_EXAMPLES)
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="The same, for programs.")] = False,
) -> None:
    """List policies, adapters, drivers, layers and samplers, and plugins that were left out."""
    from tgate_plugins.cli import plugins as verb

    found = verb.quiet_manager()
    if as_json:
        typer.echo(json.dumps(verb.to_dict(found), indent=2))
    else:
        verb.print_plugins(found, console())


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A zoo model, or a folder.")] = "emoji-sd",
    policy: Annotated[
        str | None, typer.Option(metavar="NAME[:KEY=VALUE,...]", help="The default if left out.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option("--compose", help="A further policy, such as block; repeatable."),
    ] = None,
    steps: Steps = 25,
    guidance: Annotated[bool, typer.Option(help="Whether the run is guided.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The same, for programs.")] = False,
) -> None:
    """Predict what each gate saves and holds, before anything runs; needs no weights."""
    from tgate_plugins.cli import explain as verb

    prediction = verb.explain(model, policy, beside or (), steps, guidance)
    typer.echo(json.dumps(prediction.to_dict(), indent=2) if as_json else str(prediction))


@app.command()
def compose(
    show: Annotated[  # never True by default: click 8.1 would read `--list` as its opposite
        bool, typer.Option("--list", help="Print the table; so does leaving it out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same, for programs.")] = False,
) -> None:
    """List which gates, layers and rules go together, and why others do not."""
    from tgate_plugins.cli import compose as verb

    if as_json:
        typer.echo(json.dumps(verb.to_list(), indent=2))
    else:
        verb.print_rules(console())
