"""Patches of aerial images: windows and labels by definition, equal to those of MMRotate's script, safe on disk."""

import runpy
import sys
from pathlib import Path

import cv2
import mmrotate
import numpy as np
import pytest
import shapely
import torch
from PIL import Image

from perception.datasets.dota import Labels, Patch, class_numbers, format_labels, read_labels
from perception.datasets.dota_split import (
    SplitParams,
    _PatchWriter,
    find_sources,
    labels_in,
    shares_inside,
    split,
    windows_of,
)
from perception.datasets.windows import WholeImage
from perception.inference.images.raster import open_windows

STOCK = Path(mmrotate.__file__).parent / ".mim" / "tools" / "data" / "dota" / "split" / "img_split.py"
PARAMS = SplitParams(sizes=(96,), gaps=(32,), rates=(0.5, 1.0, 1.5))


def random_labels(rng, width, height, number):
    centres = rng.uniform(0, (width, height), (number, 2))
    boxes = torch.from_numpy(np.concatenate([centres, rng.uniform(8, 60, (number, 2))], axis=1))
    angles = rng.uniform(0, np.pi, number)
    turn = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], 1).reshape(-1, 2, 2)
    unit = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    corners = centres[:, None] + (unit * boxes[:, None, 2:].numpy()) @ turn
    return Labels(corners.round(1), ("ship", "plane") * (number // 2), (0, 1) * (number // 2))


def make_folder(folder, rng, sizes, *, header=True):
    (folder / "images").mkdir(parents=True)
    (folder / "labelTxt").mkdir()
    for k, (width, height) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"P{k:04d}.png"), pixels)
        text = format_labels(random_labels(rng, width, height, 30))
        (folder / "labelTxt" / f"P{k:04d}.txt").write_text("imagesource:x\ngsd:0.1\n" * header + text)
    return folder


# ------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("width", "height", "number"),
    [
        (1024, 1024, 1),
        (1025, 1025, 4),
        (2048, 2048, 9),
        (3000, 3000, 16),
        (750, 750, 1),
        (4096, 4096, 25),
        (16384, 16384, 400),
        (500, 2600, 3),
    ],
)
def test_numbers_of_windows(width, height, number):
    assert len(windows_of(width, height, SplitParams())) == number


def test_windows_run_along_y_first_and_the_last_is_shifted_back():
    windows = windows_of(1100, 1848, SplitParams())
    assert windows.tolist() == [
        [0, 0, 1024, 1024],
        [0, 824, 1024, 1848],
        [76, 0, 1100, 1024],
        [76, 824, 1100, 1848],
    ]


def test_windows_that_are_mostly_padding_are_left_out_unless_there_is_no_better():
    params = SplitParams(sizes=(100,), gaps=(0,), rates=(0.5, 1.0))
    # The image fills 0.6 of the large window: not more than the share.
    assert windows_of(200, 120, params)[:, 2].min() == 100
    assert not (windows_of(200, 120, params) == [0, 0, 200, 200]).all(axis=1).any()
    assert (windows_of(200, 121, params)[0] == [0, 0, 200, 200]).all()
    assert windows_of(50, 40, params).tolist() == [[0, 0, 100, 100]]


def test_shares_are_those_of_shapely():
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 300, 260, 200)
    windows = windows_of(300, 260, PARAMS)
    shares = shares_inside(labels.corners, windows)
    for polygon, row in zip(map(shapely.Polygon, labels.corners), shares):
        expected = [polygon.intersection(shapely.box(*window)).area / polygon.area for window in windows]
        np.testing.assert_allclose(row, expected, atol=1e-9)
    assert ((shares > 0.05) & (shares < 0.95)).sum() > 100


def test_a_polygon_without_area_is_in_no_window():
    assert not shares_inside(np.full((1, 4, 2), 10.0), np.array([[0, 0, 50, 50]])).any()


def test_objects_stay_whole_and_cut_ones_are_difficult():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    corners = square + np.array([(92, 20), (93.5, 20), (30, 30), (90, 90)])[:, None]
    labels = Labels(corners, ("a", "b", "c", "d"), (0, 0, 1, 0))
    window = np.array([0, 10, 100, 110])
    found = labels_in(labels, window, shares_inside(corners, window[None])[:, 0], SplitParams())
    assert found.classes == ("a", "c", "d")
    assert found.difficulty == (2, 1, 0)  # touching the border is not reaching out
    np.testing.assert_array_equal(found.corners, corners[[0, 2, 3]] - (0, 10))


# --------------------------------------------------------------------------------------------------------------- files


def test_equal_to_mmrotates_script(tmp_path, monkeypatch):
    """Same patches, pixels and labels; differences that are its rounding errors are named."""
    rng = np.random.default_rng(1)
    folder = make_folder(tmp_path / "raw", rng, [(300, 210), (96, 96), (70, 130)])
    arguments = ["--img-dirs", folder / "images", "--ann-dirs", folder / "labelTxt", "--save-dir", tmp_path / "stock"]
    arguments += ["--nproc", 1, "--sizes", 96, "--gaps", 32, "--rates", 0.5, 1.0, 1.5]
    arguments += ["--padding-value", 104, 116, 124]
    monkeypatch.setattr(sys, "argv", ["img_split.py", *map(str, arguments)])
    runpy.run_path(str(STOCK), run_name="__main__")

    split(find_sources([folder], "labelTxt"), tmp_path / "ours", PARAMS)
    names = sorted(path.stem for path in (tmp_path / "stock" / "images").iterdir())
    assert names == sorted(path.stem for path in (tmp_path / "ours" / "images").iterdir())
    assert names == sorted(path.stem for path in (tmp_path / "ours" / "annfiles").iterdir())
    assert len(names) > 40
    objects = 0
    for name in names:
        ours, stock = (cv2.imread(str(tmp_path / who / "images" / f"{name}.png")) for who in ("ours", "stock"))
        np.testing.assert_array_equal(ours, stock)
        ours, stock = (read_labels(tmp_path / who / "annfiles" / f"{name}.txt") for who in ("ours", "stock"))
        np.testing.assert_allclose(ours.corners, stock.corners, atol=1e-3)
        assert ours.classes == stock.classes
        size = Patch.from_name(name).size
        for corners, level, theirs in zip(ours.corners, ours.difficulty, stock.difficulty):
            reaches_out = corners.min() < 0 or corners.max() > size
            assert (level == 2) == reaches_out
            # Areas in float32 make the script take some whole objects for cut ones.
            assert theirs == level or (theirs == 2 and not reaches_out)
        objects += len(ours.classes)
    assert objects > 100


def test_mmrotate_reads_the_patches(tmp_path):
    from mmrotate.datasets import DOTADataset

    folder = make_folder(tmp_path / "raw", np.random.default_rng(2), [(200, 200)])
    summary = split(find_sources([folder], "labelTxt"), tmp_path / "out", PARAMS)
    dataset = DOTADataset(
        data_root=str(tmp_path / "out"), ann_file="annfiles/", data_prefix={"img_path": "images/"}, pipeline=[]
    )
    counts = summary.counts["patches"]
    assert len(dataset) == counts["patches"]
    assert sum(len(dataset.get_data_info(k)["instances"]) for k in range(len(dataset))) == counts["objects"] > 0


def test_formats_of_images_and_pad(tmp_path):
    (tmp_path / "raw" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(3).integers(0, 256, (40, 30, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "raw" / "images" / "alpha.png"), pixels)
    cv2.imwrite(str(tmp_path / "raw" / "images" / "grey.TIF"), pixels[..., 0])
    split(find_sources([tmp_path / "raw"], None), tmp_path / "out", SplitParams(sizes=(48,), gaps=(0,)))
    images = {path.stem: cv2.imread(str(path)) for path in (tmp_path / "out" / "images").iterdir()}
    assert not (tmp_path / "out" / "annfiles").exists()
    np.testing.assert_array_equal(images["alpha__48__0___0"][:40, :30], pixels[..., :3])
    np.testing.assert_array_equal(images["grey__48__0___0"][:40, :30], pixels[..., :1].repeat(3, axis=2))
    for image in images.values():
        assert image.shape == (48, 48, 3)
        assert (image[40:] == (104, 116, 124)).all()
        assert (image[:, 30:] == (104, 116, 124)).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_patches_are_upright_as_labels_are(tmp_path, orientation):
    folder = make_folder(tmp_path / "raw", np.random.default_rng(8), [(100, 100)])
    upright = np.full((60, 90, 3), 40, np.uint8)
    upright[10:30, 50:80] = (250, 30, 30)
    stored = {3: np.rot90(upright, 2), 6: np.rot90(upright, 1), 8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / "images" / "P0000.png", exif=exif)
    (folder / "labelTxt" / "P0000.txt").write_text("50 10 80 10 80 30 50 30 ship 0\n")
    split(find_sources([folder], "labelTxt"), tmp_path / "out", SplitParams(sizes=(64,), gaps=(16,)))
    found = 0
    for path in (tmp_path / "out" / "annfiles").iterdir():
        pixels = cv2.imread(str(tmp_path / "out" / "images" / f"{path.stem}.png"))[..., ::-1]
        for quad in read_labels(path).corners.clip(0, 64):
            (left, top), (right, bottom) = quad.min(0).astype(int), quad.max(0).astype(int)
            assert (pixels[top:bottom, left:right] == (250, 30, 30)).all()
            found += 1
    assert found == 1  # the other window holds less than 0.7 of it


@pytest.mark.parametrize("open_image", [WholeImage, open_windows])
def test_deep_and_transparent_images_as_folder_inference_reads_them(tmp_path, open_image):
    folder = tmp_path / "raw" / "images"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(9).integers(0, 256, (70, 130, 3), np.uint8)
    cv2.imwrite(str(folder / "deep.png"), pixels[..., ::-1].astype(np.uint16) * 256 + 200)
    cv2.imwrite(str(folder / "grey.tif"), pixels[..., 0].astype(np.uint16) * 256)
    image = Image.fromarray(pixels)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(folder / "alpha.tif")
    Image.fromarray(pixels).save(folder / "web.webp", lossless=True)
    sources = find_sources([tmp_path / "raw"], None)
    params = SplitParams(sizes=(48, 64), gaps=(8, 0), rates=(0.5, 1.0))
    problems = []
    split(sources, tmp_path / "out", params, open_image=open_image, on_problem=problems.append)
    assert problems == []
    for name in ("deep", "alpha", "web", "grey"):
        expected = pixels if name != "grey" else pixels[..., :1].repeat(3, 2)
        made = list((tmp_path / "out" / "images").glob(f"{name}__*.png"))
        assert len(made) == len(windows_of(130, 70, params))
        for path in made:
            patch = Patch.from_name(path.stem)
            part = expected[patch.y : patch.y + patch.size, patch.x : patch.x + patch.size]
            cut = cv2.imread(str(path))[: part.shape[0], : part.shape[1], ::-1]
            np.testing.assert_array_equal(cut, part)


def test_a_file_that_breaks_off_leaves_no_patches(tmp_path):
    pytest.importorskip("pyvips")
    folder = make_folder(tmp_path / "raw", np.random.default_rng(10), [(600, 600), (100, 100)])
    path = folder / "images" / "P0000.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    problems, written = [], []

    class Watched(_PatchWriter):
        def drop(self):
            self._wait()
            written.extend(self._names)
            super().drop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perception.datasets.dota_split._PatchWriter", Watched)
        summary = split(
            find_sources([folder], "labelTxt"), tmp_path / "out", PARAMS, open_image=open_windows,
            on_problem=problems.append,
        )  # fmt: skip
    assert len(written) > 10
    assert "P0000.png is left out: damaged" in problems[0]
    names = [path.stem for kind in ("images", "annfiles") for path in (tmp_path / "out" / kind).iterdir()]
    assert names
    assert all(name.startswith("P0001") for name in names)
    counts = summary.counts["patches"]
    assert (counts["images"], counts["unreadable"], counts["patches"]) == (1, 1, len(names) // 2)


def test_unreadable_files_are_named_and_left_out(tmp_path):
    folder = make_folder(tmp_path / "raw", np.random.default_rng(4), [(100, 100)] * 5)
    whole = (folder / "images" / "P0001.png").read_bytes()
    (folder / "images" / "P0001.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "P0002.png").write_bytes(b"not an image")
    (folder / "labelTxt" / "P0003.txt").unlink()
    (folder / "labelTxt" / "P0004.txt").write_text("1 2 3 4 5 6 7 ship 0\n")
    problems = []
    sources = find_sources([folder], "labelTxt")
    summary = split(sources, tmp_path / "out", PARAMS, on_problem=problems.append)
    assert summary.counts["patches"]["unreadable"] == 4
    assert [f"P000{k}.png is left out" in text for k, text in enumerate(problems, start=1)] == [True] * 4
    assert "P0004.txt, line 1: expected 8 coordinates" in problems[3]
    assert {path.name[:5] for path in (tmp_path / "out" / "images").iterdir()} == {"P0000"}

    # A repaired image is another set, not a complete one.
    (folder / "images" / "P0001.png").write_bytes(whole)
    with pytest.raises(FileExistsError, match=r"files .*--overwrite replaces it"):
        split(sources, tmp_path / "out", PARAMS)
    assert split(sources, tmp_path / "out", PARAMS, overwrite=True).counts["patches"]["unreadable"] == 3


def test_a_complete_result_is_left_and_an_interrupted_one_leaves_nothing(tmp_path):
    sources = find_sources([make_folder(tmp_path / "raw", np.random.default_rng(5), [(100, 100)] * 2)], "labelTxt")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split(sources, tmp_path / "out", PARAMS, on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert split(sources, tmp_path / "out", PARAMS).created
    assert not split(sources, tmp_path / "out", PARAMS).created


def test_find_sources_refuses(tmp_path):
    rng = np.random.default_rng(6)
    first, second = (make_folder(tmp_path / name, rng, [(70, 70)]) for name in "ab")
    with pytest.raises(ValueError, match=r"b/images/P0000\.png and .*a/images/P0000\.png have the same name"):
        find_sources([first, second], "labelTxt")
    with pytest.raises(ValueError, match=r"labelTxt-v1\.5 is missing"):
        find_sources([first], "labelTxt-v1.5")
    (tmp_path / "c" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no image"):
        find_sources([tmp_path / "c"], None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gaps": (1, 2)}, "as many gaps as sizes"),
        ({"rates": (0.0,)}, "rates must be positive"),
        ({"rates": (1.0, float("nan"))}, "rates must be positive and finite"),
        ({"rates": (float("inf"),)}, "rates must be positive and finite"),
        ({"gaps": (1024,)}, "below the size"),
        ({"object_share": 1.5}, "between 0 and 1"),
        ({"pad": (0, 0, 256)}, "from 0 to 255"),
    ],
)
def test_bad_parameters(values, message):
    with pytest.raises(ValueError, match=message):
        SplitParams(**values)


# -------------------------------------------------------------------------------------------------------------- labels


def test_labels_round_trip_and_names(tmp_path):
    labels = random_labels(np.random.default_rng(7), 100, 100, 10)
    path = tmp_path / "a.txt"
    path.write_text("imagesource:GoogleEarth\ngsd:null\n" + format_labels(labels) + "\n1 2 3 4 5 6 7 8 ship\n")
    again = read_labels(path)
    np.testing.assert_array_equal(again.corners[:10], labels.corners)
    assert again.classes == (*labels.classes, "ship")
    assert again.difficulty == (*labels.difficulty, 0)

    path.write_text("imagesource:x\n1 2 3 4 5 6 7 8 ship\n", encoding="utf-8-sig")
    assert read_labels(path).classes == ("ship",)
    path.write_bytes(b"gsd:1\n1 2 3 4 5 6 7 8 caf\xe9 0\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: not UTF-8"):
        read_labels(path)

    names = ("whale", *sorted(set(again.classes)))
    assert [names[k] for k in class_numbers(again, names, path)] == list(again.classes)
    with pytest.raises(ValueError, match=r"a\.txt has objects of class '.*'; classes of the config: whale"):
        class_numbers(again, ("whale",), path)

    assert Patch.from_name("P0001__1024__824___0") == Patch("P0001", 1024, 824, 0)
    odd = Patch("a__7__8___9__b", 682, 3, 14)
    assert Patch.from_name(odd.name) == odd
    with pytest.raises(ValueError, match="'P0001' is not the name of a patch"):
        Patch.from_name("P0001")
