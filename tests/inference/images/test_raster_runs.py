"""Whole runs over rasters, in tiles and without."""

import json

import numpy as np
import pytest
from PIL import Image

from perception.inference.folder import Job, run
from perception.inference.images.tiles import Tiling
from tests.inference.conftest import make_image

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.xdist_group("inference")
WIDTH, HEIGHT = 200, 150
# The origin is no whole number of pixels: places follow from the file's own transform, never from those of tiles.
PLACE = (0.3, 0, 100000.7, 0, -0.3, 5600000.1)
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[:, 120:] = True


@pytest.fixture
def folder(tmp_path):
    """A raster of 11 bits without data in its right part, and the same image in 8 bits."""
    folder = tmp_path / "rasters"
    folder.mkdir()
    pixels = make_image(5, WIDTH, HEIGHT).transpose(2, 0, 1).clip(1).copy()
    pixels[:, 60:70, 30:40] = 255
    samples = np.where(HOLE, 0, pixels.astype(np.uint16) * 8)
    for name, bands, options in (("deep.tif", samples, {"nodata": 0}), ("plain.tif", pixels, {})):
        with rasterio.open(
            folder / name, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=3, dtype=bands.dtype,
            crs="EPSG:32633", transform=rasterio.Affine(*PLACE), **options,
        ) as file:  # fmt: skip
            file.write(bands)
    return folder


def _job(files, folder, out, **options):
    return Job(
        config=str(files.config), checkpoint=files.checkpoint, folder=folder, out=out, device="cpu", workers=1,
        options={"score_thr": 0.0, **options},
    )  # fmt: skip


@pytest.mark.parametrize("tiling", [None, Tiling(96, 32)], ids=["whole", "tiles"])
def test_label_maps_lie_where_the_image_does_and_have_nothing_without_data(segmenter, folder, tmp_path, tiling, capsys):
    out = tmp_path / "out"
    assert run(_job(segmenter, folder, out, tiling=tiling)).finished == 2
    said = capsys.readouterr().err
    assert said.count("deep.tif: samples from 8 to 2040 (99.8 % of them) become black to white") == 1
    assert "plain.tif" not in said
    for name in ("deep", "plain"):
        with rasterio.open(out / f"labels/{name}.tif") as file, Image.open(out / f"labels/{name}.tif.png") as image:
            labels = file.read(1)
            assert np.array_equal(labels, image)
            assert file.crs.to_epsg() == 32633
            assert tuple(file.transform)[:6] == PLACE
        assert np.array_equal(labels == 255, HOLE if name == "deep" else np.zeros_like(HOLE))
    images = json.loads((out / "predictions.json").read_text())["images"]
    assert [image["label_map_tiff"] for image in images] == ["labels/deep.tif", "labels/plain.tif"]
    assert sum(images[0]["pixels"].values()) == (~HOLE).sum()
    record = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert record["reading"] == {"bands": [1, 2, 3], "range": [[8.0, 2040.0]] * 3}
    (out / "labels/deep.tif").unlink()
    assert run(_job(segmenter, folder, out, tiling=tiling)).finished == 1


@pytest.mark.parametrize("tiling", [None, Tiling(160, 80)], ids=["whole", "tiles"])
def test_objects_lie_on_data(retinanet, folder, tmp_path, tiling):
    out = tmp_path / "out"
    run(_job(retinanet, folder, out, tiling=tiling))
    deep, plain = (json.loads(line) for line in (out / "predictions.jsonl").open())
    middles = {
        record["file_name"]: np.array([entry["bbox"][0] + entry["bbox"][2] / 2 for entry in record["detections"]])
        for record in (deep, plain)
    }
    assert (middles["plain.tif"] > 125).any()
    assert len(middles["deep.tif"])
    assert (middles["deep.tif"] <= 121).all()
    places = json.loads((out / "geojson/deep.tif.crs.geojson").read_text())["features"]
    assert len(places) == len(deep["detections"])
    for place, entry in zip(places, deep["detections"]):
        x, y, width, height = entry["bbox"]
        corners = np.array(place["geometry"]["coordinates"][0])
        assert corners[:, 0].min() == pytest.approx(100000.7 + 0.3 * x, abs=2e-3)
        assert corners[:, 0].max() == pytest.approx(100000.7 + 0.3 * (x + width), abs=2e-3)
        assert corners[:, 1].min() == pytest.approx(5600000.1 - 0.3 * (y + height), abs=2e-3)
        assert corners[:, 1].max() == pytest.approx(5600000.1 - 0.3 * y, abs=2e-3)


def test_how_samples_are_read_is_a_setting_of_the_run(retinanet, folder, tmp_path, run_tool):
    arguments = [retinanet.config, retinanet.checkpoint, folder, "--out", tmp_path / "out", "--device", "cpu",
                 "--workers", "1", "--no-images"]  # fmt: skip
    fixed = ["--range", "0", "4080", "--bands", "3", "2", "1"]
    assert run_tool("infer", *arguments, *fixed).code == 0
    record = json.loads((tmp_path / "out/predictions.jsonl").read_text().splitlines()[0])
    assert record["reading"] == {"bands": [3, 2, 1], "range": [[0.0, 4080.0]] * 3}
    again = run_tool("infer", *arguments, *fixed)
    assert "2 were done before" in again.out
    refused = run_tool("infer", *arguments, "--bands", "3", "2", "1")
    assert refused.code == 1
    assert "range [[0.0, 4080.0]] there, None now" in refused.err
    assert "bands [3, 2, 1] there, None now" in run_tool("infer", *arguments).err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--bands", "1", "2"], 1, "--bands takes one band or three, not 2"),
        (["--bands", "0"], 2, "0 is not at least 1"),
        (["--range", "5"], 1, "--range takes LOW HIGH, or LOW HIGH for each of three bands, not 1 numbers"),
        (["--range", "5", "5"], 1, "--range 5 5: the first has to be below the second"),
        (["--range", "0", "inf"], 1, "--range 0 inf: the first has to be below the second"),
        (["--score-thr", "30"], 2, "argument --score-thr: 30 is not between 0 and 1"),
        (["--score-thr", "-0.1"], 2, "argument --score-thr: -0.1 is not between 0 and 1"),
        (["--score-thr", "nan"], 2, "argument --score-thr: nan is not between 0 and 1"),
        (["--score-thr", "high"], 2, "argument --score-thr: 'high' is not a number"),
    ],
)
def test_options_that_make_no_sense_are_refused(retinanet, folder, tmp_path, run_tool, options, code, words):
    result = run_tool("infer", retinanet.config, retinanet.checkpoint, folder, "--out", tmp_path / "out", *options)
    assert result.code == code
    assert words in result.err
    assert not (tmp_path / "out").exists()


def test_negative_ranges_are_numbers(retinanet, folder, tmp_path, run_tool):
    arguments = [retinanet.config, retinanet.checkpoint, folder, "--out", tmp_path / "out", "--device", "cpu"]
    assert run_tool("infer", *arguments, "--workers", "1", "--range", "-100", "5000").code == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["range"] == [[-100.0, 5000.0]]
