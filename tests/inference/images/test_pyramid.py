"""Pyramids of images: long objects whole, everything in place, and runs that go on where they stopped."""

import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from PIL import Image

from perception.engine.errors import UserError
from perception.geometry.pyramid import contexts_of
from perception.geometry.rotated_boxes import as_le90
from perception.inference.folder import Job, run
from perception.inference.images import overview as overview_module
from perception.inference.images import pyramid as pyramid_module
from perception.inference.images import pyramid_kind as kind_module
from perception.inference.images.decoding import InputSize
from perception.inference.images.detector import Detector, Prepared
from perception.inference.images.results import Detections
from perception.inference.images.windowed import block_means
from perception.inference.states import KeptState
from perception.inference.writing import Files
from perception.ops.box_iou_rotated import box_iou_rotated
from tests.inference.conftest import ROTATED, _write, make_image
from tests.inference.images.memory import peak_of_infer

pytestmark = pytest.mark.xdist_group("inference")
REPOSITORY = Path(__file__).parents[3]
GROUND, LIGHT = 90, 200


class _Finder:
    """Finds what is light, as far as its window shows it; light with much red is of the second class."""

    classes, palette, input_size, fuses = ("bridge", "jetty"), [(255, 64, 64), (64, 64, 255)], None, False
    stop_after = None

    def __init__(self, cfg, checkpoint, device):
        self.windows = []

    def prepare_window(self, pixels, name, factor, around):
        data = {"pixels": pixels, "factor": factor, "around": around}
        return Prepared(data, pixels.shape)

    def predict(self, batch, score_thr):
        if self.stop_after is not None and len(self.windows) + len(batch) > self.stop_after:
            raise KeyboardInterrupt
        self.windows += [prepared.data for prepared in batch]
        return [self._found(prepared.data["pixels"]) for prepared in batch]

    def _found(self, pixels):
        # Reduced, a thin bar is paler.
        light = ((pixels[..., 1] > (GROUND + LIGHT) / 2) & (pixels[..., 2] > (GROUND + LIGHT) / 2)).astype(np.uint8)
        count, parts = cv2.connectedComponents(light)
        boxes, labels = [], []
        for part in range(1, count):
            rows, columns = np.nonzero(parts == part)
            if len(rows) > 3:
                points = np.stack([columns, rows], 1).astype(np.float32) + 0.5
                (x, y), (width, height), angle = cv2.minAreaRect(points)
                # From the centres of pixels to their edges; the short side follows from the area.
                long, turn = (width + 1, 0) if width > height else (height + 1, 90)
                boxes.append([x, y, long, len(rows) / long, np.deg2rad(angle + turn)])
                labels.append(int(pixels[rows, columns, 0].mean() > 228))
        boxes = as_le90(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)).numpy()
        # What is seen longer is surer.
        scores = 0.5 + np.minimum(boxes[:, 2] / pixels.shape[1], 1) * 0.4
        order = np.argsort(-scores, kind="stable")
        return Detections(boxes[order], scores[order].astype(np.float32), np.array(labels, np.int64)[order])


@pytest.fixture
def finder(monkeypatch):
    made = []

    def build(*arguments):
        made.append(_Finder(*arguments))
        return made[-1]

    monkeypatch.setattr(kind_module, "Detector", build)
    return made


@pytest.fixture(scope="module")
def pyramid_files(tmp_path_factory):
    """A tiny rotated detector whose recipe asks for pyramids."""
    folder_kind = 'folder_kind = dict(type="PyramidImages", patch=128, gap=24)\n'
    return _write(tmp_path_factory.mktemp("pyramid"), ROTATED + folder_kind)


def _job(files, folder, out, **changes):
    run_options = {key: changes.pop(key) for key in ("batch_size", "pictures", "overwrite") if key in changes}
    return Job(
        config=str(files.config), checkpoint=files.checkpoint, folder=folder, out=out, device="cpu", workers=1,
        options={"score_thr": 0.0, **changes}, **run_options,
    )  # fmt: skip


def _scene(width, height, bars):
    """Light bars (cx, cy, length, width, angle, red) on dull ground."""
    image = np.full((height, width, 3), GROUND, np.uint8)
    for x, y, length, breadth, angle, red in bars:
        corners = cv2.boxPoints(((x, y), (length, breadth), np.rad2deg(angle)))
        cv2.fillPoly(image, [np.round((corners - 0.5) * 16).astype(np.int32)], (red, LIGHT, LIGHT), cv2.LINE_AA, 4)
    return image


def _records(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").open()]


def _boxes(record, label=None):
    entries = [entry for entry in record["detections"] if label in (None, entry["label"])]
    return torch.tensor([entry["rbox"] for entry in entries]).reshape(-1, 5)


def _best(boxes, truth):
    return float(box_iou_rotated(boxes, torch.tensor([truth], dtype=torch.float32)).max())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scenes").mkdir()
    return tmp_path / "scenes"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_bridge_of_half_the_image_is_whole_on_a_reduced_level_only(pyramid_files, finder, folder, tmp_path, suffix):
    """3000 x 3000 pixels, and bars that no native window holds: published windows, files that are really read."""
    half, long = (1000.0, 1000.0, 1500.0, 30.0, -0.78), (1490.0, 2200.0, 2300.0, 36.0, 0.05)
    short = (2500.0, 300.0, 60.0, 20.0, -0.9)
    image = _scene(3000, 3000, [(*half, LIGHT), (*long, LIGHT), (*short, LIGHT)])
    Image.fromarray(image).save(folder / f"scene.{suffix}")
    of_levels, count = {}, {}
    for levels, keep_parts in ((1, False), (None, True), (None, False)):
        out = tmp_path / f"out{levels}{keep_parts}"
        job = _job(pyramid_files, folder, out, patch=1024, gap=200, levels=levels, keep_parts=keep_parts)
        assert run(job).finished == 1
        (record,) = _records(job.out)
        of_levels[levels] = record["levels"]
        found = {name: _best(_boxes(record), bar) for name, bar in (("short", short), ("half", half), ("long", long))}
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
    Image.fromarray(_scene(900, 600, bars)).save(folder / "scene.png")
    results = []
    for batch_size in (1, 3, 4):
        job = _job(pyramid_files, folder, tmp_path / f"out{batch_size}", patch=256, gap=110, batch_size=batch_size)
        run(job)
        (record,) = _records(job.out)
        results.append(record)
    assert results[0] == results[1] == results[2]
    for label, red in (("bridge", LIGHT), ("jetty", 255)):
        wanted = [bar[:5] for bar in bars if bar[5] == red]
        found = _boxes(results[0], label)
        for truth in wanted:
            assert _best(found, truth) > 0.7
            overlaps = box_iou_rotated(found, torch.tensor([truth]))
            assert int((overlaps > 0.6).sum()) == 1
    scores = [entry["score"] for entry in results[0]["detections"]]
    assert scores == sorted(scores, reverse=True)
    lines = (tmp_path / "out4/dota/Task1_bridge.txt").read_text().splitlines()
    assert len(lines) == len(_boxes(results[0], "bridge"))
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
        job = _job(pyramid_files, folder, tmp_path / f"out{factor}", patch=256, gap=50)
        run(job)
        assert {data["factor"] for data in finder[-1].windows} == {factor}
        (record,) = _records(job.out)
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
    Image.fromarray(_scene(*size, [(60, 60, 40, 12, 0.4, LIGHT)])).save(folder / "scene.png")
    job = _job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50)
    run(job)
    (record,) = _records(job.out)
    assert [level["windows"] for level in record["levels"]] == windows
    assert record["tiles"] == sum(windows) == len(finder[0].windows)
    assert {data["pixels"].shape for data in finder[0].windows} == {(256, 256, 3)}
    assert len(record["detections"]) == 1
    assert _best(_boxes(record), (60, 60, 40, 12, 0.4)) > 0.75


def test_nothing_is_found_beyond_the_image(pyramid_files, finder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid_module, "_FILL", (LIGHT,) * 3)
    Image.fromarray(_scene(90, 60, [(40, 30, 30, 10, 0.0, LIGHT)])).save(folder / "scene.png")
    run(_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    (record,) = _records(tmp_path / "out")
    assert len(record["detections"]) == 1
    assert record["detections"][0]["rbox"][0] == pytest.approx(40, abs=1)


def test_a_deep_georeferenced_raster_with_nodata(pyramid_files, finder, folder, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image = _scene(900, 700, [(300.0, 350.0, 500.0, 30.0, 0.2, LIGHT), (800.0, 600.0, 60.0, 20.0, 0.0, LIGHT)])
    samples = image.astype(np.uint16) * 11 + 40
    samples[560:, 700:] = 0
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", width=900, height=700, count=3, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(0.5, 0, 400000.7, 0, -0.5, 5600000.3),
    ) as file:  # fmt: skip
        file.write(samples.transpose(2, 0, 1))
    from perception.inference.images.gdal_raster import SampleOptions

    options = SampleOptions(ranges=((40.0, 40 + 11 * 255.0),))
    run(_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=60, samples=options))
    (record,) = _records(tmp_path / "out")
    assert record["reading"] == {"bands": [1, 2, 3], "range": [[40.0, 2845.0]] * 3}
    found = _boxes(record)
    assert _best(found, (300, 350, 500, 30, 0.2)) > 0.8
    assert (found[:, 0] < 700).all()
    placed = json.loads((tmp_path / "out/geojson/scene.tif.crs.geojson").read_text())
    pixels = json.loads((tmp_path / "out/geojson/scene.tif.geojson").read_text())
    for one, other in zip(pixels["features"], placed["features"], strict=True):
        moved = np.array(one["geometry"]["coordinates"][0]) * [0.5, -0.5] + [400000.7, 5600000.3]
        np.testing.assert_allclose(other["geometry"]["coordinates"][0], moved)


def test_corrupt_files_are_named_and_the_others_done(pyramid_files, finder, folder, tmp_path):
    image = Image.fromarray(_scene(400, 300, [(200, 150, 80, 20, 0.3, LIGHT)]))
    image.save(folder / "good.png")
    content = (folder / "good.png").read_bytes()
    (folder / "broken.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.tif").write_text("no image")
    report = run(_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    assert report.finished == 1
    assert set(report.skipped) == {"broken.png", "empty.jpg", "text.tif"}
    assert "damaged" in report.skipped["broken.png"]
    assert [record["file_name"] for record in _records(tmp_path / "out")] == ["good.png"]
    assert not (tmp_path / "out/state").exists()
    # It was known from the picture, before the model was asked.
    assert len(finder[0].windows) == len({data["factor"] for data in finder[0].windows}) + 3 == 5


def test_pictures_are_bounded_and_their_boxes_with_them(pyramid_files, finder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(overview_module, "OVERVIEW", 300)
    Image.fromarray(_scene(1000, 700, [(500, 350, 600, 40, 0.3, LIGHT)])).save(folder / "scene.png")
    run(_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    with Image.open(tmp_path / "out/images/scene.png") as picture:
        assert picture.size == (250, 175)
        pixels = np.asarray(picture).astype(int)
    reddish = (pixels[..., 0] > 200) & (pixels[..., 1] < 110)
    for along in (-298, 298):
        column, row = int((500 + along * np.cos(0.3)) / 4), int((350 + along * np.sin(0.3)) / 4)
        assert reddish[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7].any()
    without = _job(pyramid_files, folder, tmp_path / "plain", patch=256, gap=50, pictures=False)
    run(without)
    assert _records(without.out) == _records(tmp_path / "out")
    assert not (without.out / "images").exists()


class TestFusion:
    @pytest.fixture(autouse=True)
    def _fuses(self, monkeypatch):
        monkeypatch.setattr(_Finder, "fuses", True)

    @pytest.mark.parametrize("size", [(701, 523), (300, 290), (100, 90)])
    def test_native_windows_come_with_what_is_around_them(self, pyramid_files, finder, folder, tmp_path, size):
        image = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(image).save(folder / "scene.png")
        run(_job(pyramid_files, folder, tmp_path / "out", patch=128, gap=24, fuse_at_test=True))
        fill = np.array(pyramid_module._FILL)
        seen = 0
        for data in finder[0].windows:
            if data["factor"] > 1:
                assert data["around"] is None
                continue
            around = data["around"]
            (x, y) = _place_of(data["pixels"], image)
            assert list(around.contexts) == contexts_of(*size, x, y, 128)
            for crop, context in zip(around.images, around.contexts, strict=True):
                reduced = block_means(image, context.factor)
                expected = np.broadcast_to(fill, (context.height, context.width, 3)).astype(np.uint8)
                rows = np.arange(context.top, context.top + context.height)
                columns = np.arange(context.left, context.left + context.width)
                inside = np.ix_((rows >= 0) & (rows < len(reduced)), (columns >= 0) & (columns < reduced.shape[1]))
                expected[inside] = reduced[np.ix_(
                    rows[(rows >= 0) & (rows < len(reduced))],
                    columns[(columns >= 0) & (columns < reduced.shape[1])],
                )]  # fmt: skip
                assert crop.dtype == torch.uint8
                np.testing.assert_array_equal(crop.numpy()[::-1].transpose(1, 2, 0), expected)  # the crop is BGR
                seen += 1
        assert seen >= 1

    def test_the_pipeline_must_keep_the_resolution(self, pyramid_files, finder, folder, tmp_path, monkeypatch):
        Image.fromarray(make_image(7, 60, 60)).save(folder / "scene.png")
        monkeypatch.setattr(_Finder, "input_size", InputSize(128, 96, True))
        with pytest.raises(UserError, match="resizes to 128 x 96"):
            run(_job(pyramid_files, folder, tmp_path / "out", fuse_at_test=True))

    def test_the_model_is_told(self, pyramid_files):
        """The real detector hands on factor and surroundings."""
        from mmengine.config import Config

        detector = Detector(Config.fromfile(pyramid_files.config), pyramid_files.checkpoint, torch.device("cpu"))
        assert not detector.fuses
        around = object()
        prepared = detector.prepare_window(make_image(0, 128, 96), "window", 4, around)
        assert isinstance(prepared.data["data_samples"], DetDataSample)
        assert prepared.data["data_samples"].factor == 4
        assert prepared.data["context"] is around
        assert "context" not in detector.prepare_window(make_image(0, 128, 96), "window", 1, None).data


def test_fusion_needs_a_model_that_fuses(pyramid_files, finder, folder, tmp_path):
    Image.fromarray(make_image(7, 60, 60)).save(folder / "scene.png")
    with pytest.raises(UserError, match="needs a model that fuses levels"):
        run(_job(pyramid_files, folder, tmp_path / "out", fuse_at_test=True))


def _place_of(pixels, image):
    """Where a window of a noisy image lies."""
    height, width = (min(sizes) for sizes in zip(pixels.shape[:2], image.shape[:2]))
    scores = cv2.matchTemplate(image, pixels[:height, :width], cv2.TM_SQDIFF)
    return cv2.minMaxLoc(scores)[2]


class TestInterruptions:
    @pytest.fixture
    def scenes(self, folder):
        for number in range(3):
            bars = [(300, 250, 420, 24, 0.3 * number, LIGHT), (90, 60, 50, 14, 1.0, LIGHT)]
            Image.fromarray(_scene(640, 480, bars)).save(folder / f"{number}.png")
        return folder

    def _interrupted(self, job, monkeypatch, after):
        # States are kept as often as it goes.
        monkeypatch.setattr("perception.inference.states._SHARE", 1e9)
        monkeypatch.setattr(_Finder, "stop_after", after)
        with pytest.raises(KeyboardInterrupt):
            run(job)
        monkeypatch.setattr(_Finder, "stop_after", None)

    @pytest.mark.parametrize("after", [2, 9, 21, 40])
    def test_a_run_goes_on_inside_of_an_image(self, pyramid_files, finder, scenes, tmp_path, monkeypatch, after):
        whole = _job(pyramid_files, scenes, tmp_path / "whole", patch=160, gap=32, batch_size=2)
        run(whole)
        windows = len(finder[0].windows)
        job = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, after)
        done = len(finder[1].windows)
        assert done <= after
        run(job)
        # Nothing is run twice, but for the batch that was on its way.
        assert done + len(finder[2].windows) <= windows + 2
        assert _files(job.out) == _files(whole.out)

    def test_a_file_that_changed_is_run_from_its_start(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, 9)
        Image.fromarray(_scene(640, 480, [(320, 240, 300, 20, 0.0, LIGHT)])).save(scenes / "0.png")
        run(job)
        fresh = _job(pyramid_files, scenes, tmp_path / "fresh", patch=160, gap=32, batch_size=2)
        run(fresh)
        assert _files(job.out) == _files(fresh.out)

    def test_a_fresh_start_uses_nothing_of_before(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, 9)
        assert list((job.out / "state").iterdir())
        other = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=48, batch_size=2)
        with pytest.raises(UserError, match="gap 32 there, 48 now"):
            run(other)
        afresh = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=48, batch_size=2, overwrite=True)
        run(afresh)
        assert len(finder[-1].windows) == sum(record["tiles"] for record in _records(job.out))
        assert not (job.out / "state").exists()

    def test_a_state_that_outlived_its_image_goes(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        remove = KeptState.remove
        monkeypatch.setattr(KeptState, "remove", lambda self: None)
        run(job)
        assert list((job.out / "state").iterdir())
        monkeypatch.setattr(KeptState, "remove", remove)
        (scenes / "3.png").write_bytes((scenes / "2.png").read_bytes())
        run(job)
        assert not (job.out / "state").exists()

    def test_a_killed_run_ends_in_the_same_bytes(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        whole = _job(pyramid_files, scenes, tmp_path / "whole", patch=160, gap=32, batch_size=2)
        run(whole)
        job = _job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        journal, state = job.out / "predictions.jsonl", job.out / KeptState(Files(job.out), "1.png")._name
        child = os.fork()
        if child == 0:
            predict = _Finder.predict
            monkeypatch.setattr(_Finder, "predict", lambda *rest: (time.sleep(0.1), predict(*rest))[1])
            run(job)
            os._exit(0)
        while not (journal.exists() and journal.read_bytes().count(b"\n") == 1 and state.exists()):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert journal.read_bytes().count(b"\n") == 1
        resumed = run(job)
        assert (resumed.finished, resumed.reused) == (2, 1)
        tiles = [record["tiles"] for record in _records(job.out)]
        assert len(finder[-1].windows) < sum(tiles[1:])
        assert _files(job.out) == _files(whole.out)


def _files(out):
    """What a run has left, but for where it was started."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


class TestCommandLine:
    def test_options_and_outputs(self, pyramid_files, run_tool):
        shown = run_tool("infer", pyramid_files.config, "--help").out
        for words in ("--patch SIZE", "--gap PIXELS", "--levels NUMBER", "--no-fuse-at-test", "--bands", "Task1_CLASS"):
            assert words in shown
        assert "--overlap PIXELS" not in shown

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--patch", 16), "patch 16 is below 32 pixels"),
            (("--patch", 128, "--gap", 128), "below the patch's 128, not 128"),
            (("--gap", -1), "the gap must be at least 0"),
            (("--fuse-at-test",), "needs a model that fuses levels"),
        ],
    )
    def test_nonsense_is_refused(self, pyramid_files, folder, tmp_path, run_tool, options, words):
        Image.fromarray(make_image(1, 60, 50)).save(folder / "scene.png")
        files = pyramid_files
        refused = run_tool("infer", files.config, files.checkpoint, folder, "--out", tmp_path / "out", *options)
        assert refused.code == 1
        assert words in refused.err

    def test_a_real_model_from_the_command_line(self, pyramid_files, folder, tmp_path, run_tool):
        Image.fromarray(make_image(1, 400, 300)).save(folder / "scene.png")
        files, out = pyramid_files, tmp_path / "out"
        done = run_tool("infer", files.config, files.checkpoint, folder, "--out", out, "--score-thr", 0, "--levels", 2)
        assert done.code == 0, done.err
        (record,) = _records(out)
        assert [level["factor"] for level in record["levels"]] == [1, 2]
        assert len(record["detections"]) > 12
        assert sum(level["detections"] for level in record["levels"]) == len(record["detections"])
        assert json.loads((out / "run.json").read_text())["levels"] == 2

    def test_models_of_upright_boxes_are_refused(self, folder, tmp_path, retinanet, run_tool):
        config = tmp_path / "upright.py"
        config.write_text(f'_base_ = "{retinanet.config}"\nfolder_kind = dict(type="PyramidImages", patch=64, gap=8)\n')
        Image.fromarray(make_image(1, 90, 80)).save(folder / "scene.png")
        refused = run_tool("infer", config, retinanet.checkpoint, folder, "--out", tmp_path / "out", "--score-thr", 0)
        assert refused.code == 1
        assert "takes detectors of rotated boxes; this model yields upright boxes" in refused.err


def test_a_run_in_tiles_is_not_continued_as_a_pyramid(pyramid_files, rotated_retinanet, finder, folder, tmp_path):
    Image.fromarray(_scene(300, 200, [(100, 100, 60, 20, 0.2, LIGHT)])).save(folder / "scene.png")
    run(_job(pyramid_files, folder, tmp_path / "out"))
    with pytest.raises(UserError, match="other settings"):
        run(_job(rotated_retinanet, folder, tmp_path / "out"))


def test_progress_counts_windows(pyramid_files, finder, folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("perception.inference.progress.Progress.__init__.__defaults__", (None, 0.0))
    Image.fromarray(_scene(640, 480, [(300, 250, 420, 24, 0.3, LIGHT)])).save(folder / "scene.png")
    run(_job(pyramid_files, folder, tmp_path / "out", patch=160, gap=32, batch_size=2))
    lines = capfd.readouterr().err.splitlines()
    counts = [re.search(r"window (\d+) of (\d+), reduced by (\d+), [\d.]+ windows/s", line) for line in lines]
    counts = [tuple(map(int, match.groups())) for match in counts if match]
    (record,) = _records(tmp_path / "out")
    assert counts[-1] == (record["tiles"], record["tiles"], 4)
    assert {factor for _, _, factor in counts} == {1, 2, 4}


@pytest.mark.slow
def test_memory_does_not_depend_on_the_image(pyramid_files, tmp_path):
    pyvips = pytest.importorskip("pyvips")
    patch = pyvips.Image.new_from_array(make_image(5, 512, 512))
    peaks = {}
    for side in (4096, 16384):
        folder = tmp_path / str(side)
        folder.mkdir()
        patch.replicate(side // 512, side // 512).write_to_file(str(folder / "scene.jpg"))
        peaks[side] = peak_of_infer(
            *(pyramid_files.config, pyramid_files.checkpoint, folder, "--out", tmp_path / f"out{side}"),
            *("--patch", "1024", "--gap", "200", "--device", "cpu"),
        )
    (record,) = _records(tmp_path / "out16384")
    assert [level["windows"] for level in record["levels"]] == [400, 100, 25, 9, 1]
    assert peaks[16384] < 2e9
    assert peaks[16384] < peaks[4096] + 0.65e9  # the image has 805 MB
