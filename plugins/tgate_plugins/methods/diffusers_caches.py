"""What the caches that come with diffusers share: enabling, state, and a fresh start each run.

Transformers that know them have `enable_cache`; to others (PixArt, UNets) the same hooks are
applied by the function behind it. A pipeline that names its calls gives the hooks their context and
resets them when it ends; for one that does not, both are done here.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from torch import nn

from tgate_plugins.methods._pipes import backbone_of, is_unet
from tgate_plugins.methods._restore import as_found
from tgate_plugins.methods._runs import Clock, clocked
from tgate_sampling.errors import OptionError
from tgate_sampling.method import Applied, Method, Setting

#: Where diffusers looks for a transformer's blocks.
BLOCK_LISTS: Final = (
    "blocks",
    "layers",
    "single_transformer_blocks",
    "temporal_transformer_blocks",
    "transformer_blocks",
    "visual_transformer_blocks",
)


class DiffusersCache(Method):
    """A cache of `diffusers.hooks`.

    Attributes:
        function: which applies it where the backbone has no `enable_cache`.
        maker: its configuration class.
    """

    part = "related"
    function: ClassVar[str]
    maker: ClassVar[str]

    @abc.abstractmethod
    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        """The configuration; asked once, before the first run."""

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        """Why this cache cannot go on this pipeline, in a sentence."""
        return None

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        import diffusers

        if not hasattr(hooks(), self.maker):
            version = diffusers.__version__
            return f"diffusers {version} has no {self.maker}: pip install -U diffusers"
        return self.cannot(pipe, setting)

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        backbone = backbone_of(pipe)
        with as_found(pipe), clocked(pipe, lambda: begin(backbone)) as clock:
            enable(backbone, self.config(pipe, setting, clock), self.function)
            yield Applied(setting.steps, setting.guidance_scale)


def hooks() -> Any:
    """The module `diffusers.hooks`; an empty one where diffusers is older than it."""
    try:
        import diffusers.hooks
    except ImportError:
        return object()
    return diffusers.hooks


def enable(backbone: Any, config: Any, function: str) -> None:
    """Put a cache on the backbone.

    Raises:
        OptionError: it found nothing to cache; diffusers would go on without a word.
    """
    if hasattr(backbone, "enable_cache"):
        backbone.enable_cache(config)
    else:
        getattr(hooks(), function)(backbone, config)
    if not any(True for _ in stateful(backbone)):
        kind = type(config).__name__.removesuffix("Config")
        raise OptionError(
            f"{kind} knows no module of {type(backbone).__name__}: compare another method there."
        )


def stateful(backbone: nn.Module) -> Iterator[Any]:
    """The hooks with state that diffusers has put on the backbone and inside it."""
    for module in backbone.modules():
        registry = module.__dict__.get("_diffusers_hook")
        for hook in getattr(registry, "hooks", {}).values():
            if hook._is_stateful:
                yield hook


def begin(backbone: nn.Module) -> None:
    """Forget the run before, and name the calls of this one where the pipeline does not."""
    inner: Any = importlib.import_module("diffusers.hooks.hooks")
    managers = [
        value
        for hook in stateful(backbone)
        for value in vars(hook).values()
        if isinstance(value, inner.StateManager)
    ]
    contexts = [manager._context for manager in managers]
    inner.HookRegistry.check_if_exists_or_initialize(backbone).reset_stateful_hooks(recurse=True)
    unnamed = getattr(inner, "CacheContext", str)("cond_uncond")
    for manager, context in zip(managers, contexts, strict=True):
        manager.set_context(context or unnamed)


def no_block_list(pipe: Any, what: str, *, fewest: int) -> str | None:
    """Why a cache of whole blocks cannot go on this backbone.

    Args:
        pipe: the pipeline.
        what: the cache's name.
        fewest: blocks it needs.
    """
    backbone = backbone_of(pipe)
    kind = type(backbone).__name__
    lists = [m for n, m in backbone.named_children() if n in BLOCK_LISTS]
    blocks: list[nn.Module] = [b for m in lists if isinstance(m, nn.ModuleList) for b in m]
    if is_unet(pipe) or len(blocks) < fewest:
        return (
            f"{what} needs a list of transformer blocks, and {kind} has none of {fewest} or more."
        )
    from diffusers.hooks._helpers import TransformerBlockRegistry

    for made in {type(block) for block in blocks}:
        try:
            TransformerBlockRegistry.get(made)
        except ValueError:
            return f"{what} does not know the blocks of {kind}: diffusers lists no {made.__name__}."
    return None
