"""`explain`: what a policy will save and hold, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tgate_sampling as tg
from tgate_plugins.cli.models import check_model
from tgate_plugins.cli.spec import Spec, default_spec
from tgate_sampling.errors import OptionError
from tgate_zoo.loader import model_path, zoo_models


def explain(
    model: str, policy: str | None, compose: Sequence[str], steps: int, guidance: bool
) -> tg.Prediction:
    """The prediction for a model that lies on this machine.

    Args:
        model: a zoo name or a folder.
        policy: as on the command line, `name:key=value,...`; None is the default.
        compose: further policies by name.
        steps: of the run.
        guidance: whether there are two branches.

    Raises:
        OptionError: the model is not there, or an option is wrong.
    """
    check_model(model)
    folder = model_path(model) if model in zoo_models() else Path(model)
    if not folder.is_dir():
        raise OptionError(
            f"{model!r} is not on this machine, and explain downloads nothing: give its folder."
        )
    spec = Spec.parse(policy) if policy else default_spec()
    return tg.explain(
        str(folder),
        spec.name,
        steps=steps,
        guidance=guidance,
        compose=list(compose),
        **spec.options,
        **spec.filling,
    )
