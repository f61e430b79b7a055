"""Glossy and matt solids under measured light: views with exact albedo, roughness and normals, and the same views under
other lights, in the layout of TensoIR's synthetic scenes.

A few solids stand close together on a slab, within [-1, 1]^3, z up, of one albedo, roughness and metallic each. Light
comes from lat-long maps, which lie beside the views as `lights/NAME.hdr`; the views are lit by the first of them.
Shading is physical and linear: matt surfaces reflect the map's irradiance (without shadows), glossy ones a microfacet
lobe (GGX, Smith, Schlick), sampled ray by ray; where such a ray meets another solid it brings the light of that one's
surface, in which a mirror sees the light once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from perception.datasets.hdr_images import encode_hdr, read_hdr
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.datasets.synthetic.radiance import CAMERA_ANGLE_X, CAMERA_DISTANCE
from perception.datasets.synthetic.raycasting import Box, Hits, Scene, Sphere, Texture, camera_rays, pixel_places

EXAMPLE = "python tools/make_demo_data.py glossy --out data/demo/glossy"

VERSION = 1  # to be raised by every change that alters the files

LIGHTS = ("courtyard", "sunset", "studio")
"""Names of the lights; the views are lit by the first, and shown again under the others."""
LIGHT_SIZE = (64, 128)
SAMPLES_PER_SIDE = 3  # of a pixel
LOBE_SAMPLES = 6  # of each of these
ELEVATION = (np.radians(-10), np.radians(70))
SURFACE_OFFSET = 1e-4
DIELECTRIC = 0.04


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    num_train: int = field(default=40, metadata={"help": "number of training views"})
    num_val: int = field(default=4, metadata={"help": "number of validation views"})
    num_test: int = field(default=8, metadata={"help": "number of test views"})
    size: int = field(default=80, metadata={"help": "image height and width in pixels"})
    seed: int = field(default=0, metadata={"help": "another seed gives other solids, materials and cameras"})

    def __post_init__(self):
        for name, least in (("num_train", 1), ("num_val", 1), ("num_test", 1), ("size", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


class Material(NamedTuple):
    """Of a solid; its albedo is the colour of its texture, linear."""

    roughness: float
    metallic: float


@dataclass(frozen=True)
class GlossyScene:
    """Solids and what they are made of."""

    solids: Scene
    materials: tuple[Material, ...]


class Rendering(NamedTuple):
    """One view: (H, W, C) arrays."""

    alpha: np.ndarray  # 1: share of the pixel that solids cover
    radiance: list[np.ndarray]  # 3 each, linear, of the covered part, under each light
    albedo: np.ndarray  # 3, linear; maps are means over the covered part, 0 where nothing is
    roughness: np.ndarray  # 1
    metallic: np.ndarray  # 1
    normal: np.ndarray  # 3, unit


def sample_scene(rng: np.random.Generator) -> GlossyScene:
    """Draw the materials of a large ball, a box, two small balls and the slab, and how the box is turned."""
    hue = rng.permutation(4)
    vivid = [(0.75, 0.18, 0.12), (0.12, 0.55, 0.2), (0.12, 0.25, 0.7), (0.75, 0.5, 0.1)]
    colours = [tuple(np.clip(np.array(vivid[i]) + rng.normal(0, 0.02, 3), 0.02, 0.95)) for i in hue]
    solids = (
        Box((0.0, 0.0, -0.56), (0.8, 0.8, 0.08), 0.0, Texture("plain", (0.55, 0.52, 0.48), (0.5, 0.5, 0.5), 1.0)),
        Sphere((-0.22, 0.1, 0.0), 0.48, Texture("plain", (0.95, 0.78, 0.42), (0.9, 0.7, 0.4), 1.0)),
        Box((0.42, -0.28, -0.23), (0.24, 0.24, 0.25), rng.uniform(0, 1), Texture("plain", colours[0], colours[0], 1.0)),
        Sphere((0.42, 0.42, -0.26), 0.22, Texture("plain", colours[1], colours[1], 1.0)),
        Sphere((-0.25, -0.5, -0.3), 0.18, Texture("plain", colours[2], colours[2], 1.0)),
    )
    materials = (
        Material(0.85, 0.0),
        Material(float(rng.uniform(0.1, 0.16)), 1.0),
        Material(0.7, 0.0),
        Material(float(rng.uniform(0.2, 0.3)), 0.0),
        Material(0.35, 1.0),
    )
    return GlossyScene(Scene(solids), materials)


def make_light(name: str) -> np.ndarray:
    """The lat-long map (H, W, 3) of a name: sky, ground and a few lamps; z up, +x in the middle column."""
    directions = light_directions(*LIGHT_SIZE)
    up = directions[..., 2:3]
    if name == "courtyard":
        lamps = [((0.6, 0.5, 0.6), 0.25, (7.0, 6.3, 5.2)), ((-0.8, 0.3, 0.3), 0.35, (0.5, 1.2, 2.6))]
        lamps += [((0.1, -0.9, 0.35), 0.3, (2.4, 0.9, 0.6))]
        sky, ground = (0.35, 0.42, 0.55), (0.22, 0.18, 0.14)
    elif name == "sunset":
        lamps = [((-0.7, -0.6, 0.15), 0.2, (12.0, 5.0, 1.6)), ((0.8, 0.2, 0.5), 0.5, (0.3, 0.3, 0.9))]
        sky, ground = (0.3, 0.25, 0.45), (0.25, 0.12, 0.06)
    else:
        lamps = [((0.0, 0.2, 1.0), 0.35, (3.6, 3.6, 3.6)), ((0.9, -0.4, 0.2), 0.18, (1.0, 4.5, 2.0))]
        lamps += [((-0.5, 0.85, 0.2), 0.18, (4.5, 1.0, 3.0))]
        sky, ground = (0.12, 0.12, 0.12), (0.1, 0.1, 0.1)
    share = 1 / (1 + np.exp(-6 * up))
    light = np.asarray(sky) * share * (0.6 + 0.4 * up.clip(0)) + np.asarray(ground) * (1 - share)
    for place, width, colour in lamps:
        cosine = directions @ (np.asarray(place) / np.linalg.norm(place))
        light = light + np.asarray(colour) * np.exp((cosine[..., None] - 1) / width**2 * 2)
    return light.astype(np.float32)


def light_directions(height: int, width: int) -> np.ndarray:
    """Unit directions (H, W, 3) of a lat-long map's pixels."""
    v = (np.arange(height)[:, None] + 0.5) / height * np.pi
    u = ((np.arange(width)[None] + 0.5) / width - 0.5) * 2 * np.pi
    return np.stack([np.sin(v) * np.cos(u), -np.sin(v) * np.sin(u), np.cos(v) + 0 * u], -1)


class Light:
    """What surfaces see of a lat-long map (H, W, 3)."""

    def __init__(self, image: np.ndarray):
        self.image = image.astype(np.float64)
        height, width = image.shape[:2]
        self.directions = light_directions(height, width).reshape(-1, 3)
        edges = np.cos(np.arange(height + 1) / height * np.pi)
        areas = np.repeat((edges[:-1] - edges[1:]) * 2 * np.pi / width, width)
        cosine = (self.directions @ self.directions.T).clip(0)  # (H W, H W)
        self.irradiance = (cosine @ (self.image.reshape(-1, 3) * areas[:, None]) / np.pi).reshape(image.shape)

    def radiance(self, directions: np.ndarray) -> np.ndarray:
        """(N, 3) from unit directions (N, 3)."""
        return _sample(self.image, directions)

    def diffuse(self, normals: np.ndarray) -> np.ndarray:
        """Irradiance over pi (N, 3) of surfaces with these normals (N, 3)."""
        return _sample(self.irradiance, normals)


def _sample(image: np.ndarray, directions: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    column = (np.arctan2(-directions[:, 1], directions[:, 0]) / (2 * np.pi) + 0.5) * width - 0.5
    row = np.arccos(directions[:, 2].clip(-1, 1)) / np.pi * height - 0.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right_share, lower_share = (column - left)[:, None], (row - top)[:, None]
    columns, rows = (left % width, (left + 1) % width), (top.clip(0), (top + 1).clip(max=height - 1))
    above, below = (image[row, columns[0]] * (1 - right_share) + image[row, columns[1]] * right_share for row in rows)
    return above * (1 - lower_share) + below * lower_share


def render(scene: GlossyScene, pose: np.ndarray, size: int, lights: list[Light], rng: np.random.Generator) -> Rendering:
    """One view under each light, by 3 x 3 rays per pixel with several samples of the glossy lobe each."""
    focal = 0.5 * size / np.tan(0.5 * CAMERA_ANGLE_X)
    origins, directions = camera_rays(pose, (size, size), focal, pixel_places(SAMPLES_PER_SIDE))
    hits = scene.solids.cast(origins, directions)
    met = np.flatnonzero(hits.solid >= 0)
    unit = directions[met] / np.linalg.norm(directions[met], axis=-1, keepdims=True)
    points = origins[met] + hits.parameter[met, None] * directions[met]
    normals, albedo, roughness, metallic = _surface(scene, points, hits, met)
    colours = _glossy(scene, points, unit, normals, albedo, roughness, metallic, lights, rng)
    covered = np.zeros(len(origins))
    covered[met] = 1
    count = np.maximum(covered.reshape(size, size, -1).sum(2), 1)[..., None]

    def mean(values: np.ndarray) -> np.ndarray:
        full = np.zeros((len(origins), values.shape[1]))
        full[met] = values
        return full.reshape(size, size, -1, values.shape[1]).sum(2) / count

    normal = mean(normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    return Rendering(
        covered.reshape(size, size, -1).mean(2)[..., None],
        [mean(colour) for colour in colours],
        mean(albedo),
        mean(roughness),
        mean(metallic),
        normal,
    )


def _surface(scene: GlossyScene, points: np.ndarray, hits: Hits, met: np.ndarray) -> tuple[np.ndarray, ...]:
    """Normals (P, 3), albedo (P, 3), roughness and metallic (P, 1) at the points that rays met."""
    albedo, solid = np.zeros_like(points), hits.solid[met]
    for number, body in enumerate(scene.solids.solids):
        own = solid == number
        albedo[own] = body.texture.colours(body.local(points[own]))
    table = np.asarray(scene.materials)[solid]
    return hits.normals[met], albedo, table[:, :1], table[:, 1:]


def _glossy(scene, points, unit, normals, albedo, roughness, metallic, lights, rng) -> list[np.ndarray]:
    """Linear colours (P, 3) of surface points under each light."""
    colours = [(1 - metallic) * albedo * light.diffuse(normals) for light in lights]
    at_normal = DIELECTRIC * (1 - metallic) + metallic * albedo
    to_eye = -unit
    n_v = (normals * to_eye).sum(-1, keepdims=True).clip(1e-4)
    squared = roughness**4
    for _ in range(LOBE_SAMPLES):
        half = _half_vectors(normals, squared, rng)
        v_h = (half * to_eye).sum(-1, keepdims=True)
        out = 2 * v_h * half - to_eye
        n_l = (normals * out).sum(-1, keepdims=True)
        n_h = (half * normals).sum(-1, keepdims=True).clip(1e-6)
        lit, v_h = n_l.clip(1e-6), v_h.clip(0)
        shadow = lit * np.sqrt(n_v**2 * (1 - squared) + squared) + n_v * np.sqrt(lit**2 * (1 - squared) + squared)
        fresnel = at_normal + (1 - at_normal) * (1 - v_h) ** 5
        weight = np.where(n_l > 0, fresnel * 2 * lit * v_h / (shadow * n_h), 0)
        for colour, incoming in zip(colours, _incoming(scene, points + SURFACE_OFFSET * normals, out, lights)):
            colour += weight * incoming / LOBE_SAMPLES
    return colours


def _half_vectors(normals: np.ndarray, squared: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    share, turn = rng.uniform(size=(len(normals), 1)), rng.uniform(0, 2 * np.pi, (len(normals), 1))
    cosine = np.sqrt((1 - share) / (1 + (squared - 1) * share))
    sine = np.sqrt(1 - cosine**2)
    helper = np.where(np.abs(normals[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    right = np.cross(helper, normals)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return sine * np.cos(turn) * right + sine * np.sin(turn) * np.cross(normals, right) + cosine * normals


def _incoming(scene: GlossyScene, origins: np.ndarray, directions: np.ndarray, lights: list[Light]) -> list[np.ndarray]:
    """Light (P, 3) of each map from directions (P, 3); from solids that are in the way, what their surface reflects."""
    hits = scene.solids.cast(origins, directions)
    met = np.flatnonzero(hits.solid >= 0)
    found = [light.radiance(directions) for light in lights]
    if len(met):
        points = origins[met] + hits.parameter[met, None] * directions[met]
        normals, albedo, _, metallic = _surface(scene, points, hits, met)
        mirror = directions[met] - 2 * (directions[met] * normals).sum(-1, keepdims=True) * normals
        at_normal = DIELECTRIC * (1 - metallic) + metallic * albedo
        for light, values in zip(lights, found):
            values[met] = (1 - metallic) * albedo * light.diffuse(normals) + at_normal * light.radiance(mirror)
    return found


def srgb(linear: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] of linear values; brighter ones are cut."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055)


def camera_poses(params: Params) -> dict[str, np.ndarray]:
    """Camera-to-world poses (views, 4, 4) of each split: OpenGL axes."""
    poses = {}
    counts = {"train": params.num_train, "val": params.num_val, "test": params.num_test}
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng((params.seed, number + 1))
        low, high = np.sin(ELEVATION)
        height = low + (high - low) * (np.arange(count) + rng.uniform(0.1, 0.9, count)) / count
        turn = np.pi * (3 - np.sqrt(5)) * np.arange(count) + rng.uniform(0, 2 * np.pi)
        radius = np.sqrt(1 - height**2)
        places = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], -1)
        poses[split] = np.stack([look_at(place) for place in places])
    return poses


def look_at(direction: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of an upright camera in a direction (3,) from a point a little below the origin."""
    right = np.cross([0.0, 0.0, 1.0], direction)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(direction, right), direction
    pose[:3, 3] = CAMERA_DISTANCE * direction + [0, 0, -0.1]
    return pose


def write(
    out: Path, params: Params, *, overwrite: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> Summary:
    """Make the data set `out`; see :func:`~perception.datasets.synthetic.folder.publish` for what exists already.

    Each view has a folder `SPLIT_NUMBER` with `metadata.json`, `rgba.png`, `rgba_LIGHT.png` of the other lights, and
    `albedo.exr`, `roughness.exr`, `metallic.exr`, `normal.exr` (alpha last, laid on black).
    """
    scene, poses = sample_scene(np.random.default_rng((params.seed, 0))), camera_poses(params)
    total = sum(map(len, poses.values()))

    def fill(folder: Path) -> dict[str, dict[str, int]]:
        (folder / "lights").mkdir()
        lights, done = [], 0
        for name in LIGHTS:
            path = folder / "lights" / f"{name}.hdr"
            path.write_bytes(encode_hdr(make_light(name), ".hdr"))
            lights.append(Light(read_hdr(path)))  # as precise as the file is
        for number, (split, split_poses) in enumerate(poses.items()):
            for index, pose in enumerate(split_poses):
                rng = np.random.default_rng((params.seed, 9, number, index))
                rendering = render(scene, pose, params.size, lights, rng)
                _write_view(folder / f"{split}_{index:03d}", pose, rendering)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        return {split: {"images": len(split_poses)} for split, split_poses in poses.items()}

    return publish(out, Recipe("glossy", VERSION, asdict(params)), fill, overwrite=overwrite)


def _write_view(folder: Path, pose: np.ndarray, view: Rendering) -> None:
    folder.mkdir()
    size = view.alpha.shape[0]
    metadata = {
        "cam_angle_x": CAMERA_ANGLE_X,
        "cam_transform_mat": ",".join(repr(float(value)) for value in pose.reshape(-1)),
        "w": size,
        "h": size,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    names = ["rgba.png", *[f"rgba_{name}.png" for name in LIGHTS[1:]]]
    for name, radiance in zip(names, view.radiance):
        rgba = np.concatenate([srgb(radiance), view.alpha], -1)
        Image.fromarray(np.round(rgba * 255).astype(np.uint8)).save(folder / name)
    for name in ("albedo", "roughness", "metallic", "normal"):
        values = getattr(view, name)
        values = np.repeat(values, 3, 2) if values.shape[2] == 1 else values
        pixels = np.concatenate([values * view.alpha, view.alpha], -1)
        (folder / f"{name}.exr").write_bytes(encode_hdr(pixels, ".exr"))
