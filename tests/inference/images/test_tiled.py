"""Huge images in tiles, and what is written about rotated boxes and label maps."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely.geometry
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from perception.engine.errors import UserError
from perception.geometry.rotated_boxes import box_corners, upright_bounds
from perception.inference.folder import Job, run
from perception.inference.images import box_writer
from perception.inference.images import kind as kind_module
from perception.inference.images import overview as overview_module
from perception.inference.images.detector import Prepared
from perception.inference.images.results import Detections, LabelMap, crop_masks
from perception.inference.images.tiles import Tiling
from tests.inference.images.memory import peaks_of_sides

pytestmark = pytest.mark.xdist_group("inference")
REPOSITORY = Path(__file__).parents[3]
WIDTH, HEIGHT = 900, 620


def _job(files, folder, out, tiling=None, **changes):
    return Job(
        config=str(files.config), checkpoint=files.checkpoint, folder=folder, out=out, device="cpu",
        options={"score_thr": 0.0, "tiling": tiling}, **{"workers": 1, **changes},
    )  # fmt: skip


def _record(out):
    (line,) = (out / "predictions.jsonl").read_text().splitlines()
    return json.loads(line)


def _coordinates(width, height):
    """A picture in which each pixel says where it is: 12 bits for x, 12 for y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x & 255, y & 255, (x >> 8) | (y >> 8) << 4], -1).astype(np.uint8)


def _place(pixels):
    """x and y of a part's pixels in the whole picture."""
    red, green, blue = pixels.astype(int).transpose(2, 0, 1)
    return red + ((blue & 15) << 8), green + ((blue >> 4) << 8)


def _classes_at(x, y):
    return ((x // 37 + y // 53) % 3).astype(np.uint8)


TRUTH = torch.tensor([[30 + 47 * i, 40 + 61 * j, 60, 14, 0.4 * i - 1.5] for i in range(19) for j in range(10)])


# x, y and radius; smaller than what tiles share.
DISCS = [(70 + 110 * i, 60 + 95 * j, 20 + (7 * i + 11 * j) % 19) for i in range(8) for j in range(6)]


class _Oracle:
    """Knows where it is from the pixels: yields the objects that lie in them, and the right class of each pixel."""

    classes, palette, input_size = ("ship", "plane", "car"), [(220, 60, 60), (60, 60, 220), (9, 180, 9)], None
    kind = "boxes"

    def __init__(self, cfg, checkpoint, device):
        self.batches = []

    def prepare(self, pixels, name):
        return Prepared({"pixels": pixels}, pixels.shape)

    def predict(self, batch, score_thr):
        self.batches.append(len(batch))
        return [getattr(self, f"_{self.kind}")(image.data["pixels"]) for image in batch]

    def _labels(self, pixels):
        return LabelMap(_classes_at(*_place(pixels)))

    def _masks(self, pixels):
        """Discs, those at the tile's edge as far as they lie in it."""
        x, y = _place(pixels)
        inside = np.stack([(x - disc[0]) ** 2 + (y - disc[1]) ** 2 < disc[2] ** 2 for disc in DISCS])
        inside = inside[inside.any((1, 2))]
        masks = crop_masks(inside)
        boxes = np.array([mask.bounds() for mask in masks], np.float32).reshape(-1, 4)
        # Parts are the surest, as it happens with real models.
        scores = 0.9 - inside.sum((1, 2)) / 1e5
        return Detections(boxes, scores.astype(np.float32), np.zeros(len(masks), np.int64), masks)

    def _boxes(self, pixels):
        x, y = _place(pixels)
        bounds = upright_bounds(TRUTH)
        low, high = torch.tensor([x[0, 0], y[0, 0]]), torch.tensor([x[-1, -1] + 1, y[-1, -1] + 1])
        found = TRUTH[(bounds[:, :2] >= low).all(1) & (bounds[:, 2:] <= high).all(1)].clone()
        found[:, :2] -= low
        return Detections(found.numpy(), np.full(len(found), 0.8, np.float32), np.arange(len(found)) * 0)


@pytest.fixture
def oracle(monkeypatch):
    made = []

    def build(*arguments):
        made.append(_Oracle(*arguments))
        return made[-1]

    monkeypatch.setattr(kind_module, "Detector", build)
    return made


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    Image.fromarray(_coordinates(WIDTH, HEIGHT)).save(folder / "scene.png")
    return folder


def test_objects_of_a_large_image_are_found_once(rotated_retinanet, oracle, scene, tmp_path):
    job = _job(rotated_retinanet, scene, tmp_path / "out", tiling=Tiling(200, 80), batch_size=4)
    assert run(job).finished == 1
    record = _record(job.out)
    bounds = upright_bounds(TRUTH)
    whole = TRUTH[(bounds[:, :2] >= 0).all(1) & (bounds[:, 2:] <= torch.tensor([WIDTH, HEIGHT])).all(1)]
    assert len(whole) > 150
    found = sorted(tuple(np.round(entry["rbox"], 3)) for entry in record["detections"])
    assert found == sorted(tuple(np.round(box, 3)) for box in whole.double().tolist())
    assert record["tiles"] == 7 * 5
    assert oracle[0].batches == [4] * 8 + [3]
    with Image.open(job.out / "images" / "scene.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)

    # The same boxes in every file.
    corners = np.sort(box_corners(whole.double()).reshape(len(whole), -1).numpy(), 0)
    lines = [line.split() for line in (job.out / "dota/Task1_ship.txt").read_text().splitlines()]
    assert {(line[0], line[1]) for line in lines} == {("scene", "0.8000")}
    np.testing.assert_allclose(np.sort(np.array([line[2:] for line in lines], float), 0), corners, atol=0.006)
    features = json.loads((job.out / "geojson/scene.png.geojson").read_text())["features"]
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in features])
    assert np.array_equal(rings[:, 0], rings[:, 4])
    np.testing.assert_allclose(np.sort(rings[:, :4].reshape(len(whole), -1), 0), corners, atol=1e-3)
    coco = COCO(job.out / "predictions.json")
    for annotation in coco.dataset["annotations"]:
        xs, ys = np.reshape(annotation["segmentation"][0], (4, 2)).T
        x, y, width, height = annotation["bbox"]
        assert (x, y, x + width, y + height) == pytest.approx((xs.min(), ys.min(), xs.max(), ys.max()), abs=1e-3)


def test_label_maps_of_tiles_join_without_a_seam(segmenter, oracle, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(_Oracle, "kind", "labels")
    monkeypatch.setattr(overview_module, "OVERVIEW", 300)
    job = _job(segmenter, scene, tmp_path / "out", tiling=Tiling(170, 33), batch_size=3)
    assert run(job).finished == 1
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    expected = _classes_at(x, y)
    with Image.open(job.out / "labels" / "scene.png") as labels:
        assert np.array_equal(labels, expected)
    counts = dict(zip(_Oracle.classes, np.bincount(expected.ravel()).tolist()))
    assert _record(job.out)["pixels"] == counts
    (image,) = json.loads((job.out / "predictions.json").read_text())["images"]
    assert image["pixels"] == counts
    assert image["label_map"] == "labels/scene.png"
    # A third of the size; away from borders and legend each pixel has the tint of its class.
    with Image.open(job.out / "images" / "scene.png") as picture:
        assert picture.size == (300, 207)
        red, green, blue = np.asarray(picture)[5, 5].astype(int)  # near (16, 16), of the first class
        assert red > max(green, blue) + 40


def test_masks_of_tiles_are_found_once_and_whole(retinanet, oracle, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(_Oracle, "kind", "masks")
    job = _job(retinanet, scene, tmp_path / "out", tiling=Tiling(230, 90))
    assert run(job).finished == 1
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    expected = {}
    for disc in DISCS:
        inside = (x - disc[0]) ** 2 + (y - disc[1]) ** 2 < disc[2] ** 2
        encoded = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
        expected[encoded["counts"].decode()] = inside
    entries = _record(job.out)["detections"]
    assert {entry["segmentation"]["counts"] for entry in entries} == set(expected)
    assert len(entries) == len(DISCS)
    features = json.loads((job.out / "geojson/scene.png.geojson").read_text())["features"]
    areas = [shapely.geometry.shape(feature["geometry"]).area for feature in features]
    assert sorted(areas) == sorted(inside.sum() for inside in expected.values())
    with Image.open(job.out / "images/scene.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_large_pictures_are_reduced_and_boxes_with_them(rotated_retinanet, oracle, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(overview_module, "OVERVIEW", 450)
    shown = {}
    draw = box_writer.draw
    monkeypatch.setattr(
        box_writer, "draw", lambda pixels, found, *rest: (shown.update(found=found), draw(pixels, found, *rest))[1]
    )
    job = _job(rotated_retinanet, scene, tmp_path / "out", tiling=Tiling(200, 80))
    run(job)
    with Image.open(job.out / "images" / "scene.png") as picture:
        assert picture.size == (450, 310)
    boxes = np.array([entry["rbox"] for entry in _record(job.out)["detections"]])
    np.testing.assert_allclose(shown["found"].boxes, boxes / [2, 2, 2, 2, 1], atol=1e-3)


def test_a_georeferenced_image(rotated_retinanet, oracle, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    folder = tmp_path / "scenes"
    folder.mkdir()
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype="uint8", crs="EPSG:32633",
        transform=rasterio.Affine(0.5, 0, 400000, 0, -0.5, 5600000),
    ) as file:  # fmt: skip
        file.write(_coordinates(WIDTH, HEIGHT).transpose(2, 0, 1))
    job = _job(rotated_retinanet, folder, tmp_path / "out", tiling=Tiling(300, 100), pictures=False)
    run(job)
    pixels, placed = (
        json.loads((job.out / "geojson" / f"scene.tif{suffix}").read_text()) for suffix in (".geojson", ".crs.geojson")
    )
    assert "crs" not in pixels
    assert placed["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    for one, other in zip(pixels["features"], placed["features"], strict=True):
        (ring,), (moved,) = one["geometry"]["coordinates"], other["geometry"]["coordinates"]
        np.testing.assert_allclose(moved, np.array(ring) * [0.5, -0.5] + [400000, 5600000])
    assert _record(job.out)["georeference"]["transform"] == [0.5, 0, 400000, 0, -0.5, 5600000]


def test_a_damaged_image_is_skipped_and_leaves_nothing(segmenter, oracle, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(_Oracle, "kind", "labels")
    content = (scene / "scene.png").read_bytes()
    (scene / "broken.png").write_bytes(content[: len(content) // 2])
    summary = run(_job(segmenter, scene, tmp_path / "out", tiling=Tiling(170, 33)))
    assert summary.finished == 1
    assert "damaged" in summary.skipped["broken.png"]
    assert sorted(path.name for path in (tmp_path / "out/labels").iterdir()) == ["scene.png"]


def test_a_finished_image_is_not_run_again(rotated_retinanet, oracle, scene, tmp_path):
    job = _job(rotated_retinanet, scene, tmp_path / "out", tiling=Tiling(200, 80))
    run(job)
    Image.fromarray(_coordinates(300, 300)).save(scene / "another {1}.png")
    summary = run(job)
    assert (summary.finished, summary.reused) == (1, 1)
    with pytest.raises(UserError, match="tile 200 there, None now"):
        run(_job(rotated_retinanet, scene, tmp_path / "out"))


@pytest.mark.parametrize("name", ["rotated_retinanet", "retinanet", "segmenter"])
def test_a_tile_that_holds_the_image_changes_nothing(name, photos, tmp_path, request):
    """Real models: results with tiles larger than the images are those without."""
    files = request.getfixturevalue(name)
    for out, tiling in (("plain", None), ("tiled", Tiling(400, 100))):
        run(_job(files, photos / "night", tmp_path / out, tiling=tiling, batch_size=1))
    plain, tiled = (
        [json.loads(line) for line in (tmp_path / out / "predictions.jsonl").open()] for out in ("plain", "tiled")
    )
    assert [record | {"tiles": 1} for record in plain] == tiled
    for folder in ("labels", "images", "dota"):
        for path in (tmp_path / "plain" / folder).rglob("*.*"):
            assert path.read_bytes() == (tmp_path / "tiled" / path.relative_to(tmp_path / "plain")).read_bytes()


def test_rotated_boxes_of_a_folder(rotated_retinanet, photos, tmp_path):
    job = _job(rotated_retinanet, photos, tmp_path / "out")
    assert run(job).finished == 21
    records = [json.loads(line) for line in (job.out / "predictions.jsonl").open()]
    for record in records:
        assert len(record["detections"]) == 12
        for entry in record["detections"]:
            _, _, width, height, angle = entry["rbox"]
            assert width >= height
            assert -np.pi / 2 - 1e-6 <= angle < np.pi / 2 + 1e-6
        features = json.loads((job.out / "geojson" / f"{record['file_name']}.geojson").read_text())["features"]
        assert [feature["properties"]["label"] for feature in features] == [e["label"] for e in record["detections"]]
    written = sum(len(path.read_text().splitlines()) for path in (job.out / "dota").iterdir())
    assert written == 12 * 21
    # Starting afresh leaves nothing of it.
    run(_job(rotated_retinanet, photos / "day", tmp_path / "out", overwrite=True))
    assert not list((job.out / "geojson" / "night").glob("*"))


def test_label_maps_are_those_of_mmseg(segmenter, photos, tmp_path):
    """Against mmseg's own inference of each file."""
    from mmseg.apis import inference_model, init_model

    job = _job(segmenter, photos, tmp_path / "out")
    assert run(job).finished == 21
    model = init_model(str(segmenter.config), str(segmenter.checkpoint), device="cpu")
    for path in sorted(photos.rglob("*.*")):
        expected = inference_model(model, str(path)).pred_sem_seg.data[0].numpy()
        name = str(path.relative_to(photos))
        with Image.open(job.out / "labels" / (name if name.endswith("png") else f"{name}.png")) as labels:
            # Pillow and OpenCV may decode a JPEG's pixels one grey level apart.
            assert (np.asarray(labels) == expected).mean() > (0.999 if name.endswith("png") else 0.99)
            assert len(np.unique(labels)) > 1


@pytest.mark.slow
def test_memory_does_not_depend_on_the_image(rotated_retinanet, tmp_path):
    peaks = peaks_of_sides(
        rotated_retinanet.config, rotated_retinanet.checkpoint, tmp_path, "--tile", "1024", "--overlap", "200"
    )
    assert _record(tmp_path / "out16384")["tiles"] == 400
    assert peaks[16384] < 2e9
    # A JPEG's rows are as long as the image is wide; its area is sixteen times as large.
    assert peaks[16384] < peaks[4096] + 0.4e9
