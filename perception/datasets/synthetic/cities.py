"""Cities seen from above and from the street: overlapping satellite tiles and panoramas, in the layout of VIGOR.

A city is one procedural map. Tiles of 640 x 640 label pixels are cut from it every 320 pixels, as in VIGOR: a camera
lies in four of them, in the central quarter of one, its positive; the other three are semi-positives. A panorama shows
the ground around its camera, north in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from perception.datasets.synthetic import textures
from perception.datasets.synthetic.folder import Recipe, Summary, fill_splits, publish
from perception.datasets.synthetic.jpeg import write_jpeg
from perception.datasets.synthetic.textures import Colour

EXAMPLE = "python tools/make_demo_data.py cities --out data/demo/cities --train-cameras 400"

VERSION = 1  # to be raised by every change that alters the files

CITIES = {"Ashford": (52.0, 8.0), "Birchwood": (47.5, 11.0), "Cedarvale": (45.0, 5.0), "Dunmore": (53.3, -6.2)}
"""Names, and latitude and longitude of each map's upper left corner in degrees."""

METRES_PER_PIXEL = 0.11
"""Of the maps, in label pixels."""

TILE, STRIDE = 640, 320  # label pixels
_METRES_PER_DEGREE = 111_320.0
_CAMERA_HEIGHT, _REACH = 20.0, 320.0  # label pixels
_SUPERSAMPLED_LEVELS = 5


@dataclass(frozen=True)
class Params:
    """The choices that determine the files."""

    num_cities: int = field(default=2, metadata={"help": "cities, at most 4"})
    tiles_per_side: int = field(default=7, metadata={"help": "tiles along each side of a city's map"})
    train_cameras: int = field(default=240, metadata={"help": "training panoramas of each city"})
    test_cameras: int = field(default=40, metadata={"help": "test panoramas of each city"})
    tile_pixels: int = field(default=256, metadata={"help": "side of the tiles' files; labels are at 640"})
    panorama_height: int = field(default=160, metadata={"help": "of the panoramas, which are twice as wide"})
    seed: int = field(default=0, metadata={"help": "another seed gives other cities"})

    def __post_init__(self):
        if not 1 <= self.num_cities <= len(CITIES):
            raise ValueError(f"num_cities must be 1 to {len(CITIES)}, not {self.num_cities}")
        if self.tiles_per_side < 3:
            raise ValueError(f"tiles_per_side must be at least 3, not {self.tiles_per_side}")
        for name in ("train_cameras", "test_cameras"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("tile_pixels", "panorama_height"):
            if getattr(self, name) < 64 or getattr(self, name) % 2:
                raise ValueError(f"{name} must be even and at least 64, not {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Building:
    """A flat roof: corners (4, 2) in label pixels."""

    corners: np.ndarray
    colour: Colour
    texture_seed: int


@dataclass(frozen=True)
class Road:
    """A straight band between two points (x, y), in label pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """Everything of one city; `side` of its map in label pixels."""

    side: int
    grounds: tuple[tuple[Colour, Colour, Colour], ...]
    ground_seed: int
    roads: tuple[Road, ...]
    buildings: tuple[Building, ...]
    trees: np.ndarray  # (N, 3): x, y, radius
    tree_colours: np.ndarray  # (N, 3)
    light: float


@dataclass(frozen=True)
class Camera:
    """A camera's place (x, y) in label pixels, and the tiles (column, row) that cover it: the positive first."""

    x: float
    y: float
    tiles: tuple[tuple[int, int], ...]

    def offset(self, tile: tuple[int, int]) -> tuple[float, float]:
        """VIGOR's (d_row, d_col) to a tile: positive below and to the left of its centre."""
        centre_x, centre_y = (STRIDE * place + TILE / 2 for place in tile)
        return self.y - centre_y, centre_x - self.x


# ---------------------------------------------------------------------------------------------------------- sampling


def sample_scene(rng: np.random.Generator, tiles_per_side: int) -> Scene:
    """Draw a city."""
    side = TILE + STRIDE * (tiles_per_side - 1)
    grounds = tuple(textures.muted_palette(rng) for _ in range(6))
    roads = tuple(_sample_roads(rng, side))
    count = int((side / 130) ** 2)
    buildings = tuple(_sample_building(rng, side) for _ in range(count))
    trees = np.column_stack([rng.uniform(0, side, (count, 2)), rng.uniform(8, 26, count)])
    greens = [textures.from_hsv(rng.uniform(0.22, 0.42), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6)) for _ in trees]
    return Scene(side, grounds, _draw_seed(rng), roads, buildings, trees, np.array(greens), rng.uniform(0, 2 * np.pi))


def _sample_roads(rng: np.random.Generator, side: int) -> Iterator[Road]:
    for axis in range(2):
        place = rng.uniform(40, 160)
        while place < side:
            slant = rng.uniform(-120, 120)
            ends = [(0.0, place), (float(side), place + slant)]
            start, end = (tuple(point[::-1]) if axis else point for point in ends)
            grey = rng.uniform(0.25, 0.65)
            yield Road(start, end, rng.uniform(18, 44), textures.from_hsv(rng.uniform(), 0.08, grey))
            place += rng.uniform(150, 380)


def _sample_building(rng: np.random.Generator, side: int) -> Building:
    size = rng.uniform(30, 120, 2) / 2
    turn = rng.normal(0, 0.2)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size @ axes + rng.uniform(0, side, 2)
    return Building(corners, textures.vivid_colour(rng), _draw_seed(rng))


def sample_camera(rng: np.random.Generator, tiles_per_side: int) -> Camera:
    """Draw a camera that four tiles cover."""
    x, y = rng.uniform(STRIDE, STRIDE * tiles_per_side, 2)
    columns, rows = ((int(v // STRIDE) - 1, int(v // STRIDE)) for v in (x, y))
    tiles = [(column, row) for column in columns for row in rows]

    def distance(tile: tuple[int, int]) -> float:
        return max(abs(STRIDE * tile[0] + TILE / 2 - x), abs(STRIDE * tile[1] + TILE / 2 - y))

    return Camera(x, y, tuple(sorted(tiles, key=distance)))


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


# --------------------------------------------------------------------------------------------------------- rendering


def render(scene: Scene, scale: float) -> np.ndarray:
    """The map, `float32` `[S, S, 3]` RGB in [0, 1], with `scale` pixels for each label pixel."""
    size = round(scene.side * scale)
    canvas = _draw_ground(scene, size, scale)
    for road in scene.roads:
        points = [tuple(_fixed(np.array(point) * scale)) for point in (road.start, road.end)]
        cv2.line(canvas, *points, road.colour, max(1, round(road.width * scale)), cv2.LINE_AA, shift=4)
    shadow = np.array([np.cos(scene.light), np.sin(scene.light)]) * 12
    for building in scene.buildings:
        _fill(canvas, (building.corners - shadow) * scale, building.colour, 0.35)
        _draw_roof(canvas, building, scale)
    for (x, y, radius), colour in zip(scene.trees, scene.tree_colours):
        centre = tuple(_fixed(np.array([x, y]) * scale))
        cv2.circle(canvas, centre, int(_fixed(radius * scale)), colour.tolist(), -1, cv2.LINE_AA, shift=4)
    return np.clip(canvas, 0, 1)


def _draw_ground(scene: Scene, size: int, scale: float) -> np.ndarray:
    """Districts of different grounds with soft noise borders."""
    rng = np.random.default_rng(scene.ground_seed)
    heights = [textures.value_noise(rng, size, size, cell=420 * scale, octaves=2) for _ in scene.grounds]
    owner = np.argmax(heights, 0)
    canvas = np.zeros((size, size, 3), np.float32)
    for number, palette in enumerate(scene.grounds):
        weight = textures.value_noise(rng, size, size, cell=160 * scale, octaves=6)[..., None]
        base, accent = (np.float32(palette[k]) for k in (0, 2))
        canvas = np.where(owner[..., None] == number, base + weight * (accent - base), canvas)
    return canvas.astype(np.float32)


def _draw_roof(canvas: np.ndarray, building: Building, scale: float) -> None:
    rng = np.random.default_rng(building.texture_seed)
    _fill(canvas, building.corners * scale, building.colour, 1.0)
    for _ in range(rng.integers(0, 3)):  # skylights
        weights = rng.dirichlet([1.5] * 4)
        centre = weights @ building.corners
        corners = centre + (building.corners - building.corners.mean(0)) * rng.uniform(0.1, 0.3)
        _fill(canvas, corners * scale, textures.vivid_colour(rng), 1.0)


def _fill(canvas: np.ndarray, corners: np.ndarray, colour: Colour, brightness: float) -> None:
    cv2.fillPoly(canvas, [_fixed(corners)], tuple(brightness * c for c in colour), cv2.LINE_AA, shift=4)


def _fixed(values: np.ndarray) -> np.ndarray:
    """OpenCV's fixed-point coordinates with four bits of fraction."""
    return np.round(np.asarray(values) * 16).astype(np.int32)


def render_panorama(city: np.ndarray, camera: Camera, scale: float, height: int) -> np.ndarray:
    """What a camera sees all around, `float32` `[height, 2 * height, 3]`.

    Column u looks to azimuth 360 (u + 1/2) / width - 180 degrees, clockwise from north; row v has elevation
    90 - 180 (v + 1/2) / height degrees. The ground at depression a is h / tan(a) away, at most 320 label pixels; what
    is above the horizon is sky.

    Args:
        city: the map from `render`.
        camera: where.
        scale: pixels of the map for each label pixel.
        height: of the panorama.
    """
    width = 2 * height
    azimuth = np.deg2rad(360 * (np.arange(width) + 0.5) / width - 180)
    elevation = np.deg2rad(90 - 180 * (np.arange(height) + 0.5) / height)
    below = np.flatnonzero(elevation < 0)
    distance = np.minimum(_CAMERA_HEIGHT / np.tan(-elevation[below]), _REACH) * scale
    x = camera.x * scale + np.outer(distance, np.sin(azimuth)) - 0.5
    y = camera.y * scale - np.outer(distance, np.cos(azimuth)) - 0.5
    # A far row's pixels cover more of the map: taken from a map that was reduced as much.
    footprint = np.maximum(np.abs(np.gradient(distance)), distance * 2 * np.pi / width)
    level = np.clip(np.round(np.log2(np.maximum(footprint, 1))), 0, _SUPERSAMPLED_LEVELS - 1).astype(int)
    sky = np.linspace(1.0, 0.0, below[0], dtype=np.float32)[:, None, None]
    panorama = np.empty((height, width, 3), np.float32)
    panorama[: below[0]] = np.float32([0.80, 0.86, 0.92]) + sky * (np.float32([0.35, 0.55, 0.85]) - 0.85)
    reduced = city
    for number in range(_SUPERSAMPLED_LEVELS):
        rows = level == number
        if rows.any():
            factor = 2.0**-number
            maps = [((v[rows] + 0.5) * factor - 0.5).astype(np.float32) for v in (x, y)]
            panorama[below[rows]] = cv2.remap(reduced, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        reduced = cv2.resize(reduced, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.clip(panorama, 0, 1)


# ----------------------------------------------------------------------------------------------------------- writing


def scene_of(params: Params, city: int) -> Scene:
    """City number `city`."""
    return sample_scene(np.random.default_rng([params.seed, city]), params.tiles_per_side)


def cameras_of(params: Params, city: int) -> list[Camera]:
    """All cameras of a city, those of training first."""
    rng = np.random.default_rng([params.seed, city, 1])
    return [sample_camera(rng, params.tiles_per_side) for _ in range(params.train_cameras + params.test_cameras)]


def geographic(city: str, x: float, y: float) -> tuple[float, float]:
    """Latitude and longitude in degrees of a place on a map, in label pixels."""
    latitude, longitude = CITIES[city]
    metres = METRES_PER_PIXEL / _METRES_PER_DEGREE
    return latitude - y * metres, longitude + x * metres / np.cos(np.deg2rad(latitude))


def tile_name(city: str, tile: tuple[int, int]) -> str:
    """File name of a tile (column, row), with the place of its centre."""
    latitude, longitude = geographic(city, *(STRIDE * place + TILE / 2 for place in tile))
    return f"satellite_{latitude:.7f}_{longitude:.7f}.png"


def write(
    out: Path,
    params: Params,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Write the data set `out`: `CITY/{panorama,satellite}/` and `splits_new/CITY/*.txt`.

    Nothing is visible at `out` before everything is there. A complete set of the same parameters is left as it is.

    Args:
        overwrite: replace a generated set that has other parameters or lost files.
        on_progress: called with the number of finished panoramas and their total.

    Raises:
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
    """
    scale = params.tile_pixels / TILE

    def fill(root: Path) -> dict[str, dict[str, int]]:
        def fill_city(city: str, numbers: Iterator[int]) -> dict[str, int]:
            place = list(CITIES).index(city)
            picture = render(scene_of(params, place), scale)
            names = _write_tiles(root / city / "satellite", city, picture, params)
            cameras = cameras_of(params, place)
            folder = root / city / "panorama"
            folder.mkdir()
            lines = []
            for index in numbers:
                camera = cameras[index]
                latitude, longitude = geographic(city, camera.x, camera.y)
                name = f"{city.lower()}{index:05d},{latitude:.7f},{longitude:.7f},.jpg"
                panorama = render_panorama(picture, camera, scale, params.panorama_height)
                write_jpeg(folder / name, _as_bytes(panorama))
                lines.append(_label(name, city, camera))
            _write_splits(root / "splits_new" / city, names, lines, params.train_cameras)
            return {"tiles": len(names), "panoramas": len(lines)}

        count = params.train_cameras + params.test_cameras
        sizes = dict.fromkeys(list(CITIES)[: params.num_cities], count)
        return fill_splits(sizes, fill_city, on_progress)

    return publish(out, Recipe("cities", VERSION, asdict(params)), fill, overwrite=overwrite)


def _write_tiles(folder: Path, city: str, picture: np.ndarray, params: Params) -> list[str]:
    folder.mkdir(parents=True)
    names = []
    step = params.tile_pixels // 2
    for row in range(params.tiles_per_side):
        for column in range(params.tiles_per_side):
            names.append(tile_name(city, (column, row)))
            top, left = row * step, column * step
            pixels = _as_bytes(picture[top : top + params.tile_pixels, left : left + params.tile_pixels])
            _, encoded = cv2.imencode(".png", pixels[..., ::-1])
            (folder / names[-1]).write_bytes(encoded.tobytes())
    return names


def _label(name: str, city: str, camera: Camera) -> str:
    """A line of VIGOR's lists: the panorama, then tile and offset four times, the positive first."""
    parts = [name]
    for tile in camera.tiles:
        row, column = camera.offset(tile)
        parts += [tile_name(city, tile), f"{row:.4f}", f"{column:.4f}"]
    return " ".join(parts)


def _write_splits(folder: Path, tiles: list[str], lines: list[str], train_cameras: int) -> None:
    folder.mkdir(parents=True)
    for name, content in (
        ("satellite_list", tiles),
        ("same_area_balanced_train", lines[:train_cameras]),
        ("same_area_balanced_test", lines[train_cameras:]),
        ("pano_label_balanced", lines),
    ):
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in content))


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255 + 0.5).astype(np.uint8)
