"""Whole runs over folders, through the command line where that is what a user sees."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from perception.engine.errors import UserError
from perception.engine.page import pictures
from perception.inference.folder import Job, run
from perception.inference.images import box_writer
from perception.inference.images import kind as kind_module
from perception.inference.images.detector import Detector
from tests.inference import workers
from tests.inference.conftest import make_image

pytestmark = pytest.mark.xdist_group("inference")
INFER = Path(__file__).parents[2] / "tools/infer.py"


def _job(files, folder, out, tiling=None, **changes):
    return Job(
        config=str(files.config), checkpoint=files.checkpoint, folder=folder, out=out, device="cpu",
        options={"score_thr": 0.0, "tiling": tiling}, **{"workers": 1, **changes},
    )  # fmt: skip


def _files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _records(out):
    return {record["file_name"]: record for record in map(json.loads, (out / "predictions.jsonl").open())}


@pytest.fixture(scope="module")
def reference(retinanet, photos, tmp_path_factory):
    """An uninterrupted run over `photos`."""
    out = tmp_path_factory.mktemp("reference") / "out"
    assert run(_job(retinanet, photos, out)).finished == 21
    return out


def test_a_run_writes_everything(reference, photos):
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.*"))
    assert sorted(_files(reference)) == sorted(
        [f"images/{name}" for name in names]
        + [file for name in names for file in (pictures.thumbnail_file(name), pictures.view_file(name))]
        + ["index.html", "page/records/00000.js"]
        + ["predictions.json", "predictions.jsonl", "run.json", "skipped.json"]
    )
    records = _records(reference)
    assert list(records) == names
    for name, record in records.items():
        with Image.open(photos / name) as image, Image.open(reference / "images" / name) as picture:
            assert picture.size == image.size == (record["width"], record["height"])
            assert picture.format == image.format
            assert np.abs(np.asarray(picture).astype(int) - np.asarray(image)).max() > 100  # something is drawn
        assert len(record["detections"]) == 12
        scores = [entry["score"] for entry in record["detections"]]
        assert scores == sorted(scores, reverse=True)


def test_the_results_load_as_coco(reference, photos):
    coco = COCO(reference / "predictions.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == sorted(_records(reference))
    assert [category["name"] for category in coco.dataset["categories"]] == ["ship", "plane", "car"]
    assert len(coco.dataset["annotations"]) == 12 * 21
    for annotation in coco.dataset["annotations"]:
        image = coco.imgs[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        assert -1e-3 <= x <= x + width <= image["width"] + 1e-3
        assert -1e-3 <= y <= y + height <= image["height"] + 1e-3
        assert annotation["category_id"] in (1, 2, 3)
    assert len(coco.loadRes(coco.dataset["annotations"]).anns) == 12 * 21


def test_predictions_are_those_of_the_model_on_the_file(reference, retinanet, photos):
    from mmengine.config import Config

    detector = Detector(Config.fromfile(retinanet.config), retinanet.checkpoint, torch.device("cpu"))
    for name, record in list(_records(reference).items())[::5]:
        pixels = np.asarray(Image.open(photos / name))
        expected = detector.predict([detector.prepare(pixels, name)], 0.0)[0]
        boxes = np.array([entry["bbox"] for entry in record["detections"]])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, expected.boxes, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose([entry["score"] for entry in record["detections"]], expected.scores, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_results_do_not_depend_on_the_batch_size(reference, retinanet, photos, tmp_path, batch_size):
    run(_job(retinanet, photos, tmp_path / "out", batch_size=batch_size, pictures=False))
    expected = _records(reference)
    found = _records(tmp_path / "out")
    assert list(found) == list(expected)
    for name, record in found.items():
        for entry, other in zip(record["detections"], expected[name]["detections"], strict=True):
            np.testing.assert_allclose(entry["bbox"], other["bbox"], rtol=1e-5, atol=1e-4)
            assert entry["score"] == pytest.approx(other["score"], abs=1e-5)
            assert entry["label"] == other["label"]


def _spoil(folder):
    """Adds one file of each bad kind; returns what shall be said of it."""
    photo = Image.fromarray(make_image(99, 128, 96))
    photo.save(folder / "truncated.jpg")
    os.truncate(folder / "truncated.jpg", 900)
    photo.save(folder / "cut.png")
    os.truncate(folder / "cut.png", 3000)
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not an image at all")
    (folder / "zeros.png").write_bytes(bytes(4096))
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.png")
    bomb = bytearray(_saved(photo, folder / "bomb.bmp"))
    bomb[18:26] = struct.pack("<ii", 70_000, 70_000)
    (folder / "bomb.bmp").write_bytes(bomb)
    Image.new("RGB", (2000, 1)).save(folder / "thread.png")
    return {
        "truncated.jpg": "damaged: ",
        "cut.png": "damaged: ",
        "empty.jpg": "empty file",
        "text.jpg": "not an image",
        "zeros.png": "not an image",
        "phone.heic": "not an image",
        "gone.jpg": "broken symbolic link",
        "pipe.png": "not a regular file",
        "bomb.bmp": "70000 x 70000 pixels need",
        "thread.png": "the test pipeline fails on it",
    }


def _oddities(folder):
    """Adds one file of each odd kind that has to work; returns the size that each shall be reported with."""
    photo = Image.fromarray(make_image(98, 128, 96))
    upright = Image.Exif()
    upright[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=upright)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("L").save(folder / "grey.png")
    photo.convert("LA").save(folder / "grey_alpha.png")
    photo.convert("P").save(folder / "palette.png")
    photo.convert("RGBA").save(folder / "alpha.png")
    photo.convert("1").save(folder / "bit.tif")
    photo.save(folder / "wrong.jpg", format="PNG")
    photo.save(folder / "moving.gif", save_all=True, append_images=[photo.rotate(90)])
    photo.save(folder / "pages.tiff", save_all=True, append_images=[photo])
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.float32) / 9).save(folder / "depth.tif")
    photo.save(folder / "UPPER.WEBP")
    (folder / "folder.jpg").mkdir()
    photo.save(folder / "folder.jpg/inner.png")
    names = "cmyk.jpg grey.png grey_alpha.png palette.png alpha.png bit.tif wrong.jpg moving.gif pages.tiff deep.png"
    sizes = dict.fromkeys([*names.split(), "depth.tif", "UPPER.WEBP", "folder.jpg/inner.png"], (128, 96))
    return sizes | {"rotated.jpg": (96, 128)}


def _saved(image, path):
    image.save(path)
    return path.read_bytes()


def test_bad_files_are_named_and_odd_ones_done(retinanet, tmp_path, run_tool):
    folder = tmp_path / "folder"
    folder.mkdir()
    sizes, reasons = _oddities(folder), _spoil(folder)
    (folder / "notes.txt").write_text("left aside")
    (folder / ".hidden.jpg").write_text("not seen")
    out = folder / "out"
    arguments = ["--out", out, "--device", "cpu", "--workers", "2", "--score-thr", "0"]
    result = run_tool("infer", retinanet.config, retinanet.checkpoint, folder, *arguments)
    assert result.code == 3, result.err
    listed = json.loads((out / "skipped.json").read_text())
    skipped = {entry["file_name"]: entry["reason"] for entry in listed["skipped"]}
    assert skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert skipped[name].startswith(reason)
        assert f"{name}: {skipped[name]}" in result.out
    assert listed["ignored"] == ["notes.txt"]
    assert {name: (record["width"], record["height"]) for name, record in _records(out).items()} == sizes
    assert f"{len(sizes)} images done" in result.out
    assert f"{len(reasons)} skipped" in result.out
    # Again: nothing is lost or done twice, the bad files are bad still.
    before = _files(out)
    again = run_tool("infer", retinanet.config, retinanet.checkpoint, folder, *arguments)
    assert again.code == 3
    assert "0 images done in" in again.out
    assert f"{len(sizes)} were done before" in again.out
    assert _files(out) == before


def test_a_file_that_kills_its_process_is_skipped(retinanet, reference, photos, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "day/001.jpg", folder / "day/killer.jpg")
    monkeypatch.setattr(kind_module, "ImageReader", workers.DyingReader)
    summary = run(_job(retinanet, folder, tmp_path / "out", workers=2))
    assert list(summary.skipped) == ["day/killer.jpg"]
    assert "died" in summary.skipped["day/killer.jpg"]
    assert summary.finished == 21
    assert (tmp_path / "out/predictions.jsonl").read_bytes() == (reference / "predictions.jsonl").read_bytes()


def test_a_run_that_is_killed_ends_like_one_that_is_not(retinanet, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(120):
        size = ((320, 240), (240, 320), (300, 300))[index % 3]
        Image.fromarray(make_image(index, *size)).save(folder / f"{index:03d}.jpg")
    out = tmp_path / "out"
    arguments = [retinanet.config, retinanet.checkpoint, folder, "--out", out, "--device", "cpu", "--score-thr", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, INFER, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        journal = out / "predictions.jsonl"
        while not (journal.exists() and journal.stat().st_size) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    written = journal.read_bytes().count(b"\n")
    assert 0 < written < 120
    assert not (out / "predictions.json").exists()
    drawn = {name: (out / "images" / name).stat().st_mtime_ns for name in _records(out)}
    # What a kill in the middle of a line leaves behind.
    with journal.open("ab") as file:
        file.write(b'{"file_name": "119.jpg", "file_si')
    if written % 4 == 0:
        # Make sure that some batch was half done.
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[1:]))
        del drawn[json.loads(lines[0])["file_name"]]

    resumed = run(_job(retinanet, folder, out, batch_size=4))
    assert (resumed.finished, resumed.reused) == (120 - len(drawn), len(drawn))
    assert {name: (out / "images" / name).stat().st_mtime_ns for name in drawn} == drawn
    whole = run(_job(retinanet, folder, tmp_path / "whole", batch_size=4))
    assert whole.finished == 120
    assert _files(out) == _files(tmp_path / "whole")


def test_a_model_that_fails_on_one_image_loses_only_this_one(retinanet, reference, photos, tmp_path, monkeypatch):
    predict = Detector.predict

    def fail(self, batch, score_thr):
        if any(prepared.data["data_samples"].img_path == "day/004.jpg" for prepared in batch):
            raise RuntimeError("shape mismatch")
        return predict(self, batch, score_thr)

    monkeypatch.setattr(Detector, "predict", fail)
    summary = run(_job(retinanet, photos, tmp_path / "out", pictures=False))
    assert summary.skipped == {"day/004.jpg": "the model fails on it: RuntimeError: shape mismatch"}
    assert summary.finished == 20
    monkeypatch.setattr(Detector, "predict", predict)
    assert run(_job(retinanet, photos, tmp_path / "out", pictures=False)).reused == 20
    assert list(_records(tmp_path / "out")) == list(_records(reference))


def test_a_model_that_fails_on_everything_is_an_error(retinanet, photos, tmp_path, monkeypatch):
    def fail(self, batch, score_thr):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(Detector, "predict", fail)
    with pytest.raises(UserError, match="the model fails on every image: RuntimeError: no such operator"):
        run(_job(retinanet, photos, tmp_path / "out"))


def test_an_image_that_cannot_be_written_ends_the_run(retinanet, photos, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(box_writer, "draw", fail)
    with pytest.raises(OSError, match="No space left"):
        run(_job(retinanet, photos, tmp_path / "out"))


def test_huge_images_are_found_in_their_own_pixels(retinanet, tmp_path):
    small = Image.fromarray(make_image(5, 128, 96))
    (tmp_path / "folder").mkdir()
    small.resize((8192, 6144), Image.Resampling.NEAREST).save(tmp_path / "folder/huge.jpg", quality=90)
    small.resize((512, 384), Image.Resampling.NEAREST).save(tmp_path / "folder/small.jpg", quality=100)
    run(_job(retinanet, tmp_path / "folder", tmp_path / "out"))
    records = _records(tmp_path / "out")
    assert (records["huge.jpg"]["width"], records["huge.jpg"]["height"]) == (8192, 6144)
    boxes = {name: np.array([entry["bbox"] for entry in record["detections"]]) for name, record in records.items()}
    # The same picture at sixteen times the size: its best boxes are the same ones, sixteen times as large.
    np.testing.assert_allclose(boxes["huge.jpg"][:3] / 16, boxes["small.jpg"][:3], atol=8)
    assert Image.open(tmp_path / "out/images/huge.jpg").size == (4096, 3072)


class TestCommandLine:
    """Exit status and the one sentence of an error."""

    @pytest.fixture
    def infer(self, retinanet, photos, tmp_path, run_tool):
        def call(config=retinanet.config, checkpoint=retinanet.checkpoint, folder=photos, options=()):
            out = () if "--out" in options else ("--out", tmp_path / "out")
            return run_tool("infer", config, checkpoint, folder, *out, "--device", "cpu", *options)

        return call

    def test_all_done_is_0_and_says_where_things_are(self, infer, tmp_path):
        result = infer(options=["--pattern", "night/*", "--no-images", "--workers", "1"])
        assert result.code == 0, result.err
        assert "7 images done in" in result.out
        assert "images/s" in result.out
        assert f"predictions: {tmp_path / 'out/predictions.json'}" in result.out
        assert not (tmp_path / "out/images").exists()
        # Once more, with other settings.
        refused = infer(options=["--pattern", "night/*", "--score-thr", "0.5"])
        assert refused.code == 1
        assert "score_thr 0.3 there, 0.5 now" in refused.err
        options = ["--cfg-options", "model.test_cfg.max_per_img=3", "--score-thr", "0", "--workers", "1"]
        assert "another config" in infer(options=["--pattern", "night/*", *options]).err
        replaced = infer(options=["--pattern", "night/*", "--overwrite", *options])
        assert replaced.code == 0
        assert {len(record["detections"]) for record in _records(tmp_path / "out").values()} == {3}

    def test_one_file_is_a_folder_of_one(self, infer, photos, tmp_path):
        assert infer(folder=photos / "day/001.jpg", options=["--workers", "1"]).code == 0
        assert list(_records(tmp_path / "out")) == ["001.jpg"]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"config": "nowhere.py"}, "config nowhere.py does not exist"),
            ({"checkpoint": "nowhere.pth"}, "checkpoint nowhere.pth does not exist"),
            ({"folder": "nowhere"}, "folder nowhere does not exist"),
            ({"options": ["--pattern", "*.bmp"]}, "holds no files that match *.bmp (21 other files)"),
            ({"options": ["--device", "cuda:77"]}, "--device cuda:77 cannot be used"),
            ({"options": ["--cfg-options", "model=None"]}, "describes no model"),
            ({"options": ["--cfg-options", "modle.x=1"]}, "--cfg-options modle.x: the config has no modle; model?"),
            ({"options": ["--out", "/proc/none/out"]}, "cannot write into /proc/none/out: No such file"),
            ({"options": ["--out", f"{__file__}/out"]}, "test_folder.py is a file, not a folder"),
        ],
    )
    def test_errors_are_one_sentence_and_1(self, infer, changes, words):
        result = infer(**changes)
        assert result.code == 1
        assert words in result.err
        assert len(result.err.strip().splitlines()) == 1

    def test_an_empty_folder_is_an_error(self, infer, tmp_path):
        (tmp_path / "empty").mkdir()
        result = infer(folder=tmp_path / "empty")
        assert result.code == 1
        assert "holds no images (0 other files)" in result.err

    def test_results_never_go_over_the_images(self, infer, photos):
        for out in (photos, photos.parent):
            result = infer(options=["--out", out])
            assert result.code == 1
            assert "contains the images in" in result.err

    def test_a_checkpoint_of_another_model_is_refused_before_anything_runs(self, infer, faster_rcnn):
        result = infer(checkpoint=faster_rcnn.checkpoint)
        assert result.code == 1
        assert "is not of this model" in result.err

    def test_wrong_usage_is_2_and_help_has_an_example(self, run_tool):
        assert run_tool("infer", "--batch-size", "0").code == 2
        assert run_tool("infer", "a.py").code == 2
        shown = run_tool("infer", "--help")
        assert shown.code == 0
        assert "python tools/infer.py configs/demo/rank_detr.py" in shown.out


def test_names_without_room_for_results_are_skipped(retinanet, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a" * 240 + ".png", "b.png"):
        Image.fromarray(make_image(1, 64, 64)).save(folder / name)
    summary = run(_job(retinanet, folder, tmp_path / "out"))
    assert summary.finished == 1
    assert "more than 235 bytes" in summary.skipped["a" * 240 + ".png"]
