"""What the sensors of the recorded vehicle see of the driving world at a moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .driving_world import World
from .motion import planar_pose, scene_at
from .raycasting import Scene
from .sensors import Camera, Lidar, Scan


class View(NamedTuple):
    """What a camera sees."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    visible: np.ndarray  # (actors,) pixels of each actor
    alone: np.ndarray  # (actors,) pixels that it would have if nothing stood before it


def pose_of_ego(world: World, time: float) -> np.ndarray:
    """The recorded vehicle's pose (4, 4) in the world: x forward, y left, z up from the road below its rear axle."""
    return planar_pose(*world.ego.at(time))


def render(world: World, camera: Camera, time: float, samples: int) -> View:
    """One image, at the moment when it is taken."""
    scene, owners = scene_at(time, world.still, world.bodies)
    pose = pose_of_ego(world, time) @ camera.ego_from_camera
    candidates = camera.candidates(scene, pose, samples)
    origins, directions = camera.rays(pose, samples)
    hits = scene.cast_among(origins, directions, candidates)
    colours, missed = hits.colours, hits.solid < 0
    colours[missed] = _sky(directions[missed])
    image = colours.reshape(camera.height, camera.width, samples**2, 3).mean(2)
    # Of each pixel the first of its rays counts what is seen.
    step = samples**2
    met = hits.solid[::step]
    visible = np.bincount(owners[met[met >= 0]] + 1, minlength=len(world.actors) + 1)[1:]
    first = [rays[::step] for rays in candidates]
    alone = _silhouettes(scene, owners, (origins, directions), first, len(world.actors))
    return View(np.round(image * 255).astype(np.uint8), visible, alone)


def scan(world: World, lidar: Lidar, time: float, rng: np.random.Generator) -> tuple[Scan, np.ndarray]:
    """One turn of the LiDAR, and for each point the number of the actor that it lies on, -1 for none."""
    scene, owners = scene_at(time, world.still, world.bodies)
    found = lidar.scan(scene, pose_of_ego(world, time) @ lidar.ego_from_lidar, rng)
    return found, owners[found.solid]


def _sky(directions: np.ndarray) -> np.ndarray:
    """Colours (N, 3): paler towards the horizon."""
    up = np.clip(directions[:, 2] / np.linalg.norm(directions, axis=-1), 0, 1)[:, None] ** 0.5
    return (1 - up) * np.array([0.82, 0.87, 0.92]) + up * np.array([0.42, 0.62, 0.9])


def _silhouettes(
    scene: Scene, owners: np.ndarray, rays: tuple[np.ndarray, np.ndarray], candidates: list[np.ndarray], count: int
) -> np.ndarray:
    """Number of rays (count,) that would meet each actor if it were alone."""
    moving = np.flatnonzero(owners >= 0)
    own = Scene(tuple(scene.solids[k] for k in moving))
    met = own.silhouettes(*rays, [candidates[k] for k in moving])
    alone = np.zeros(count, np.int64)
    for number in range(count):
        mine = [met[k] for k in np.flatnonzero(owners[moving] == number)]
        alone[number] = len(np.unique(np.concatenate(mine))) if mine else 0
    return alone
