"""What a study measures of its pictures, (N, height, width, 3) in [0, 1], one number a picture.

    measured = paired(images, ungated) | alone(images, captions, model_is_zoo=True)
    for name, values in measured.items():
        print(name, summarize(values, prompts, better=BETTER[name]).to_dict())
    print(difference(ours["psnr"], rival["psnr"], prompts))     # paired: same prompts and seeds
    print(fid(features(images), features(ungated)))             # at least 2,000 pictures each
    print(left_out())                                           # what is not here, and the cure

`paired` measures how near pictures are to others of the same prompts and seeds, `alone` what they
are on their own. A metric whose weights are not on this machine is left out by name; nothing is
ever downloaded.
"""

from __future__ import annotations

from tgate_plugins.study.metrics.alone import alone
from tgate_plugins.study.metrics.frechet import LEAST_IMAGES, fid, frechet_distance
from tgate_plugins.study.metrics.multiscale import ms_ssim, scales
from tgate_plugins.study.metrics.names import BETTER, Better, left_out
from tgate_plugins.study.metrics.paired import levels, paired, shifts
from tgate_plugins.study.metrics.reading import features
from tgate_plugins.study.metrics.spread import Summary, difference, summarize

__all__ = [
    "BETTER",
    "Better",
    "LEAST_IMAGES",
    "Summary",
    "alone",
    "difference",
    "features",
    "fid",
    "frechet_distance",
    "left_out",
    "levels",
    "ms_ssim",
    "paired",
    "scales",
    "shifts",
    "summarize",
]
