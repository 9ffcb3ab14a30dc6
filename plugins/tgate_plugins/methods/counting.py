"""What a call of a pipeline really computes inside its backbone, whoever's method it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tgate_plugins.methods._pipes import backbone_of

#: The first layer that a backbone's latents go through.
ENTRIES = ("conv_in", "pos_embed")


def macs_of(pipe: Any, call: Callable[[], object]) -> tuple[float, int]:
    """True MACs and rows of everything inside the backbone's forwards during `call`.

    Operators are counted where they run, so that nothing a method skips is counted, and nothing
    that it adds is missed. Attention's own products are included: its math kernel spells them out.
    Slower than the call by itself, and not to be timed.

    Args:
        pipe: with the method applied.
        call: makes one picture.

    Returns:
        Multiply-accumulates, and the rows that entered the backbone's first layer.
    """
    backbone: Any = backbone_of(pipe)
    entry = next((m for n in ENTRIES if (m := getattr(backbone, n, None)) is not None), backbone)
    rows = 0

    def note(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal rows
        given = args[0] if args else next(iter(kwargs.values()))
        rows += len(given)

    handle = entry.register_forward_pre_hook(note, with_kwargs=True)
    counter = FlopCounterMode(display=False)
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            call()
    finally:
        handle.remove()
    counted = counter.get_flop_counts().get(type(backbone).__name__, {})
    return sum(counted.values()) / 2, rows
