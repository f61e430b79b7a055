"""Things that move through a scene: paths of lines and arcs, and bodies of solids that follow them.

Places are (x, y, z) in metres, headings radians from +x to +y, times seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .raycasting import Box, Scene, Sphere


def planar_pose(x: float, y: float, heading: float, z: float = 0.0) -> np.ndarray:
    """Pose (4, 4) of what stands upright at a place."""
    cos, sin = np.cos(heading), np.sin(heading)
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Path:
    """A way at constant speed: straight from a start, then along bends, then straight again.

    Attributes:
        start: (x, y, heading) at time 0.
        speed: in m/s.
        bends: (length, curvature) of pieces in order; curvature in 1/m, positive to the left. The last piece is
            followed by a straight line.
    """

    start: tuple[float, float, float]
    speed: float = 0.0
    bends: tuple[tuple[float, float], ...] = ()

    def at(self, time: float) -> tuple[float, float, float]:
        """(x, y, heading) at a time; before 0 the path is continued straight backwards."""
        x, y, heading = self.start
        left = self.speed * time
        for length, curvature in self.bends:
            if left <= 0:
                break
            step = min(left, length)
            x, y, heading = _advance(x, y, heading, step, curvature)
            left -= step
        return _advance(x, y, heading, left, 0.0)


def _advance(x: float, y: float, heading: float, length: float, curvature: float) -> tuple[float, float, float]:
    turn = length * curvature
    # The chord of an arc: exact, and for a line the same formula with a factor of 1.
    chord = length * np.sinc(turn / (2 * np.pi))
    return x + chord * np.cos(heading + turn / 2), y + chord * np.sin(heading + turn / 2), heading + turn


@dataclass(frozen=True)
class Body:
    """Solids that move together.

    Attributes:
        solids: in the body's frame: x forward, y left, z up from the ground below its middle.
        path: of the frame's origin.
        height: of the ground that it stands on.
    """

    solids: tuple[Sphere | Box, ...]
    path: Path
    height: float = 0.0

    def placed(self, time: float) -> tuple[Sphere | Box, ...]:
        """Its solids in the scene's frame at a time."""
        x, y, heading = self.path.at(time)
        return tuple(solid.placed((x, y, self.height), heading) for solid in self.solids)


def scene_at(time: float, still: Sequence[Sphere | Box], bodies: Sequence[Body]) -> tuple[Scene, np.ndarray]:
    """The scene at a moment.

    Returns:
        The scene, whose first solids are the still ones, and for each of its solids the number of the body that it
        belongs to, -1 for still ones.
    """
    solids, owners = list(still), [-1] * len(still)
    for number, body in enumerate(bodies):
        placed = body.placed(time)
        solids += placed
        owners += [number] * len(placed)
    return Scene(tuple(solids)), np.array(owners)
