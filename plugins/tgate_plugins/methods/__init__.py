"""Ways to make a pipeline cheaper, ours and other people's, behind the same three verbs.

    from tgate_plugins.methods.spec import parse
    from tgate_sampling.method import Setting

    method, setting = parse("deepcache:interval=3"), Setting(steps=25, guidance_scale=4.0)
    if (reason := method.refuses(pipe, setting)) is None:
        with method.apply(pipe, setting) as how:
            images = pipe(prompt, num_inference_steps=how.steps,
                          guidance_scale=how.guidance_scale, **how.arguments).images

One file an idea. `suite` names those of a comparison, `counting` counts what any of them computes.
Importing this imports neither diffusers nor any of the packages that are compared.
"""

from __future__ import annotations

from tgate_plugins.methods import (
    adaptive_guidance,
    baseline,
    cache_dit,
    deepcache,
    faster_cache,
    first_block_cache,
    guidance_cut,
    mag_cache,
    ours,
    pab,
    taylorseer,
    text_window,
    tgate_reference,
    tomesd,
)
from tgate_sampling.hookspecs import RegisterMethod, hookimpl

#: In the order of a table.
MODULES = (
    baseline,
    ours,
    guidance_cut,
    adaptive_guidance,
    tgate_reference,
    deepcache,
    tomesd,
    pab,
    faster_cache,
    first_block_cache,
    taylorseer,
    mag_cache,
    cache_dit,
    text_window,
)


@hookimpl
def tgate_register_methods(register: RegisterMethod) -> None:
    for module in MODULES:
        module.register(register)
