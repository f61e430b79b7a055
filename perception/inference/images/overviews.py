"""Whether a file's reduced copies can be trusted."""

from __future__ import annotations

import numpy as np

from perception.datasets.windows import Window
from perception.inference.images.windowed import Raster

NO_AVERAGES = (
    "its overviews are no averages of its pixels (gdaladdo -r average makes such), so that it is reduced from the full "
    "image, which takes longer"
)
_PLACES = ((0.1, 0.1), (0.1, 0.7), (0.4, 0.4), (0.7, 0.1), (0.7, 0.7))  # shares of height and width
_SIDE = 128
# Mean difference in grey levels at a place; of averages only roundings differ, and what JPEG makes of them.
_MOST = 2.0


def agree(by_overview: Raster, anew: Raster) -> bool:
    """Whether two reductions of an image are alike, going by some places of it.

    Few programs write down how overviews were made, and gdaladdo takes every other pixel if it is not told otherwise:
    thin things vanish in that.
    """
    width, height = min(_SIDE, anew.width), min(_SIDE, anew.height)
    for top, left in _PLACES:
        place = Window(int(left * (anew.width - width)), int(top * (anew.height - height)), width, height)
        ours, theirs = (raster.read(place).astype(np.int16) for raster in (anew, by_overview))
        if np.abs(ours - theirs).mean() > _MOST:
            return False
    return True
