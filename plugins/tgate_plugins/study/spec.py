"""What a study is asked to do: a YAML file, a ready suite, or words on the command line.

A spec says everything that the pictures depend on, and nothing else: the engine, the number of
workers and the folder may change when a study goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, field_validator

from tgate_plugins.cli.models import default_prompts
from tgate_plugins.cli.values import parse_size
from tgate_plugins.study.metrics import BETTER, LEAST_IMAGES
from tgate_plugins.study.ways import canonical
from tgate_sampling.errors import nearest

#: Steps of the run that stands for the converged picture.
CONVERGED: Final = 200


def _as_list(value: Any) -> Any:
    """One word where a list may stand."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _as_seeds(value: Any) -> Any:
    """A number of seeds counts from 0; a list names them."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"a study needs a seed or more, {value} were asked for")
        return list(range(value))
    return value


def _as_size(value: Any) -> Any:
    """`512` or `512x768`, as on the command line, or width and height."""
    return list(parse_size(str(value))) if isinstance(value, str | int) else value


def _as_models(value: Any) -> Any:
    """A bare name is a model without overrides."""
    if isinstance(value, list):
        return [{"name": one} if isinstance(one, str) else one for one in value]
    return value


def _once(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _some(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("the list is empty: leave the field out, or name one")
    return _once(values)


def _prompts(values: list[str]) -> list[str]:
    if not all(text.strip() for text in values):
        raise ValueError("a prompt is empty: write what to draw")
    return _some(values)


def _methods(values: list[str]) -> list[str]:
    return _some([canonical(text) for text in values])


# pydantic runs the last of several first; each list is checked after it is one.
Prompts: TypeAlias = Annotated[list[str], BeforeValidator(_as_list)]
Methods: TypeAlias = Annotated[list[str], BeforeValidator(_as_list)]
Seeds: TypeAlias = Annotated[list[Annotated[int, Field(ge=0)]], BeforeValidator(_as_seeds)]
Size: TypeAlias = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_as_size)]
ConvergedSteps: TypeAlias = Annotated[int, Field(ge=0)]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ModelSpec(_Base):
    """One model; what is left out is the study's.

    Args:
        name: of the zoo, a folder, or a hub id; with `path`, any name to show.
        path: where the model is; the name if left out.
        unet: a folder or hub id of another UNet to put into it, as LCM-SDXL is published.
        variant: of the weight files, as "fp16".
        converged_steps: of the reference run; 0 for a model whose picture does not converge with
            its steps, such as a latent-consistency model's.
    """

    name: Annotated[str, Field(min_length=1)]
    path: str | None = None
    unet: str | None = None
    variant: str | None = None
    methods: Methods | None = None
    prompts: Prompts | None = None
    seeds: Seeds | None = None
    steps: PositiveInt | None = None
    guidance_scale: float | None = None
    converged_steps: ConvergedSteps | None = None
    sampler: str | None = None
    negative_prompt: str | None = None
    size: Size | None = None

    _check_prompts = field_validator("prompts")(lambda v: v if v is None else _prompts(v))
    _check_methods = field_validator("methods")(lambda v: v if v is None else _methods(v))
    _check_seeds = field_validator("seeds")(lambda v: v if v is None else _some(v))


class StudySpec(_Base):
    """A whole study.

    Args:
        models: names, or mappings with overrides.
        methods: as `name:key=value,...`; all that suit the model if left out.
        prompts: texts; a handful that suit the model if left out.
        seeds: how many, counted from 0, or a list of them.
        steps, guidance_scale: of the ungated run.
        converged_steps: of the run that stands for the converged picture; 0 for none.
        sampler, negative_prompt, size, device, dtype: as `tgate-sampling compare` takes them.
        threads: of each worker; one by default, since more may add numbers in another order, and
            then the same study gives other last bits on another machine. 0 leaves it to torch.
        fid: pictures of each method for FID, 2000 or more; 0 for none. For models of the zoo.
        metrics: those to measure; all that can be if left out.
    """

    models: Annotated[list[ModelSpec], BeforeValidator(_as_models)]
    methods: Methods | None = None
    prompts: Prompts | None = None
    seeds: Seeds = [0]
    steps: PositiveInt = 25
    guidance_scale: float = 4.0
    converged_steps: ConvergedSteps = CONVERGED
    sampler: str | None = None
    negative_prompt: str | None = None
    size: Size | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 1
    fid: Annotated[int, Field(ge=0)] = 0
    metrics: Annotated[list[str], BeforeValidator(_as_list)] | None = None

    _check_prompts = field_validator("prompts")(lambda v: v if v is None else _prompts(v))
    _check_methods = field_validator("methods")(lambda v: v if v is None else _methods(v))
    _check_seeds = field_validator("seeds")(_some)

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        names = [m.name for m in models]
        if not names:
            raise ValueError("a study needs a model: name one, as emoji-sd")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"model {name!r} is there twice: give one of them another name")
        return models

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if name not in BETTER:
                raise ValueError(f"no metric is called {name!r}. {nearest(name, BETTER)}")
        return None if names is None else _some(names)

    @field_validator("fid")
    @classmethod
    def _check_fid(cls, count: int) -> int:
        if 0 < count < LEAST_IMAGES:
            raise ValueError(
                f"FID of {count} pictures says nothing: ask for {LEAST_IMAGES} or more, or for 0"
            )
        return count

    def to_dict(self) -> dict[str, Any]:
        """Plain values; equal studies have equal ones."""
        return self.model_dump(mode="json")

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The models with all that their pictures depend on."""
        return tuple(Subject.of(self, model) for model in self.models)


@dataclass(frozen=True)
class Subject:
    """One model of a study, overrides applied.

    Args:
        methods: as they were asked for; None for all that suit it.
    """

    name: str
    path: str
    unet: str | None
    variant: str | None
    methods: tuple[str, ...] | None
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance_scale: float
    converged_steps: int
    sampler: str | None
    negative_prompt: str | None
    size: tuple[int, int] | None
    device: str
    dtype: str
    threads: int
    fid: int

    @classmethod
    def of(cls, study: StudySpec, model: ModelSpec) -> Subject:
        """The model with the study's word for what it leaves out."""

        def said(field: str) -> Any:
            own = getattr(model, field)
            return getattr(study, field) if own is None else own

        path = model.path or model.name
        methods, steps = said("methods"), said("steps")
        converged = said("converged_steps")
        return cls(
            name=model.name,
            path=path,
            unet=model.unet,
            variant=model.variant,
            methods=None if methods is None else tuple(methods),
            prompts=tuple(said("prompts") or default_prompts(path)),
            seeds=tuple(said("seeds")),
            steps=steps,
            guidance_scale=said("guidance_scale"),
            # The ungated run itself is as near as it gets.
            converged_steps=converged if converged > steps else 0,
            sampler=said("sampler"),
            negative_prompt=said("negative_prompt"),
            size=said("size"),
            device=study.device,
            dtype=study.dtype,
            threads=study.threads,
            fid=study.fid,
        )

    @property
    def images(self) -> tuple[tuple[int, int], ...]:
        """What every method draws: prompt number and seed."""
        return tuple((n, seed) for n in range(len(self.prompts)) for seed in self.seeds)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Of every call, beside prompt, steps, guidance and seed."""
        found: dict[str, Any] = {}
        if self.negative_prompt is not None:
            found["negative_prompt"] = self.negative_prompt
        if self.size:
            found["width"], found["height"] = self.size
        return found
