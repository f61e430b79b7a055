"""Pyramids of images: long objects whole, everything in place, and once."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from perception.inference.folder import run
from perception.inference.images import pyramid as pyramid_module
from perception.inference.images.results import Detections
from perception.ops.box_iou_rotated import box_iou_rotated
from tests.inference.images.pyramids import GROUND, LIGHT, best_overlap, boxes_of, make_job, make_scene, records_of

pytestmark = pytest.mark.xdist_group("inference")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_bridge_of_half_the_image_is_whole_on_a_reduced_level_only(pyramid_files, finder, folder, tmp_path, suffix):
    """3000 x 3000 pixels, and bars that no native window holds: published windows, files that are really read."""
    half, long = (1000.0, 1000.0, 1500.0, 30.0, -0.78), (1490.0, 2200.0, 2300.0, 36.0, 0.05)
    short = (2500.0, 300.0, 60.0, 20.0, -0.9)
    image = make_scene(3000, 3000, [(*half, LIGHT), (*long, LIGHT), (*short, LIGHT)])
    Image.fromarray(image).save(folder / f"scene.{suffix}")
    of_levels, count = {}, {}
    for levels, keep_parts in ((1, False), (None, True), (None, False)):
        out = tmp_path / f"out{levels}{keep_parts}"
        job = make_job(pyramid_files, folder, out, patch=1024, gap=200, levels=levels, keep_parts=keep_parts)
        assert run(job).finished == 1
        (record,) = records_of(job.out)
        of_levels[levels] = record["levels"]
        found = {
            name: best_overlap(boxes_of(record), bar)
            for name, bar in (("short", short), ("half", half), ("long", long))
        }
        assert found["short"] > 0.8
        count[keep_parts] = len(record["detections"])
        if levels == 1:
            assert found["long"] < 0.5
            assert found["half"] < 0.7
        elif keep_parts:
            # Here a part is surer than the whole, of which it covers more than half.
            assert found["long"] > 0.9
            assert found["half"] < 0.7
        else:
            assert min(found["half"], found["long"]) > 0.9
    assert (count[True], count[False]) == (10, 3)
    assert [(level["factor"], level["windows"]) for level in of_levels[None]] == [(1, 16), (2, 4), (4, 1)]
    assert of_levels[1][0]["windows"] == 16
    assert sum(level["detections"] for level in of_levels[None][1:]) >= 2
    with Image.open(job.out / "images" / ("scene.tif.jpg" if suffix == "tif" else f"scene.{suffix}")) as picture:
        assert picture.size == (3000, 3000)


def test_objects_of_every_size_are_found_once(pyramid_files, finder, folder, tmp_path):
    bars = [
        (60.0, 50.0, 40.0, 12.0, 0.3, LIGHT), (500.0, 80.0, 30.0, 10.0, -1.2, 255),
        (420.0, 300.0, 560.0, 26.0, 0.5, LIGHT), (700.0, 120.0, 90.0, 14.0, 1.1, LIGHT),
        (130.0, 480.0, 100.0, 20.0, -0.2, 255),
    ]  # fmt: skip
    Image.fromarray(make_scene(900, 600, bars)).save(folder / "scene.png")
    results = []
    for batch_size in (1, 3, 4):
        job = make_job(pyramid_files, folder, tmp_path / f"out{batch_size}", patch=256, gap=110, batch_size=batch_size)
        run(job)
        (record,) = records_of(job.out)
        results.append(record)
    assert results[0] == results[1] == results[2]
    for label, red in (("bridge", LIGHT), ("jetty", 255)):
        wanted = [bar[:5] for bar in bars if bar[5] == red]
        found = boxes_of(results[0], label)
        for truth in wanted:
            assert best_overlap(found, truth) > 0.7
            overlaps = box_iou_rotated(found, torch.tensor([truth]))
            assert int((overlaps > 0.6).sum()) == 1
    scores = [entry["score"] for entry in results[0]["detections"]]
    assert scores == sorted(scores, reverse=True)
    lines = (tmp_path / "out4/dota/Task1_bridge.txt").read_text().splitlines()
    assert len(lines) == len(boxes_of(results[0], "bridge"))
    assert len(json.loads((tmp_path / "out4/geojson/scene.png.geojson").read_text())["features"]) == len(scores)


def test_classes_are_merged_apart():
    found = pyramid_module._Collected([pyramid_module.Level(1, 50, 50)], [1])
    boxes = np.array([[20, 20, 10, 4, 0.1]] * 3, np.float32)
    place = pyramid_module._Place(0, found.levels[0], pyramid_module.Window(0, 0, 50, 50))
    found.add(place, Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([1, 0, 1])))
    merged, levels = found.merged(pyramid_module.Pyramiding())
    assert merged.labels.tolist() == [1, 0]
    np.testing.assert_allclose(merged.scores, [0.9, 0.8])
    assert levels == [{"factor": 1, "windows": 1, "detections": 2}]


def test_the_corner_of_a_single_level_maps_back(pyramid_files, finder, folder, tmp_path, monkeypatch):
    image = np.full((777, 1001, 3), GROUND, np.uint8)
    image[760:776, 960:1000] = LIGHT
    Image.fromarray(image).save(folder / "scene.png")
    levels_of = pyramid_module.Pyramiding.levels_of
    for number, factor in enumerate((1, 2, 4)):
        one = partial(_one_level, levels_of, number)
        monkeypatch.setattr(pyramid_module.Pyramiding, "levels_of", lambda self, raster, one=one: one(self, raster))
        job = make_job(pyramid_files, folder, tmp_path / f"out{factor}", patch=256, gap=50)
        run(job)
        assert {data["factor"] for data in finder[-1].windows} == {factor}
        (record,) = records_of(job.out)
        (entry,) = record["detections"]
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], [960, 760, 1000, 776], atol=0.5)


def _one_level(levels_of, number, settings, raster):
    return levels_of(settings, raster)[number : number + 1]


@pytest.mark.parametrize(
    ("size", "windows"),
    [((187, 187), [1]), ((256, 256), [1]), ((257, 257), [4, 1]), ((125, 650), [3, 2, 1]), ((512, 512), [9, 1])],
)
def test_windows_of_images_of_any_shape(pyramid_files, finder, folder, tmp_path, size, windows):
    """A quarter of 1024 and 200 pixels, and of images of the sizes that are known."""
    Image.fromarray(make_scene(*size, [(60, 60, 40, 12, 0.4, LIGHT)])).save(folder / "scene.png")
    job = make_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50)
    run(job)
    (record,) = records_of(job.out)
    assert [level["windows"] for level in record["levels"]] == windows
    assert record["tiles"] == sum(windows) == len(finder[0].windows)
    assert {data["pixels"].shape for data in finder[0].windows} == {(256, 256, 3)}
    assert len(record["detections"]) == 1
    assert best_overlap(boxes_of(record), (60, 60, 40, 12, 0.4)) > 0.75


def test_nothing_is_found_beyond_the_image(pyramid_files, finder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid_module, "_FILL", (LIGHT,) * 3)
    Image.fromarray(make_scene(90, 60, [(40, 30, 30, 10, 0.0, LIGHT)])).save(folder / "scene.png")
    run(make_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    (record,) = records_of(tmp_path / "out")
    assert len(record["detections"]) == 1
    assert record["detections"][0]["rbox"][0] == pytest.approx(40, abs=1)


def test_a_deep_georeferenced_raster_with_nodata(pyramid_files, finder, folder, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image = make_scene(900, 700, [(300.0, 350.0, 500.0, 30.0, 0.2, LIGHT), (800.0, 600.0, 60.0, 20.0, 0.0, LIGHT)])
    samples = image.astype(np.uint16) * 11 + 40
    samples[560:, 700:] = 0
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=900, height=700, count=3, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(0.5, 0, 400000.7, 0, -0.5, 5600000.3),
    ) as file:  # fmt: skip
        file.write(samples.transpose(2, 0, 1))
    from perception.inference.images.gdal_raster import SampleOptions

    options = SampleOptions(ranges=((40.0, 40 + 11 * 255.0),))
    run(make_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=60, samples=options))
    (record,) = records_of(tmp_path / "out")
    assert record["reading"] == {"bands": [1, 2, 3], "range": [[40.0, 2845.0]] * 3}
    found = boxes_of(record)
    assert best_overlap(found, (300, 350, 500, 30, 0.2)) > 0.8
    assert (found[:, 0] < 700).all()
    placed = json.loads((tmp_path / "out/geojson/scene.tif.crs.geojson").read_text())
    pixels = json.loads((tmp_path / "out/geojson/scene.tif.geojson").read_text())
    for one, other in zip(pixels["features"], placed["features"], strict=True):
        moved = np.array(one["geometry"]["coordinates"][0]) * [0.5, -0.5] + [400000.7, 5600000.3]
        np.testing.assert_allclose(other["geometry"]["coordinates"][0], moved)
