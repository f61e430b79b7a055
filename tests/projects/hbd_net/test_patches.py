"""Pyramid patches: what is written, resumed and loaded."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from perception.datasets.dota import Labels, format_labels, read_labels
from perception.datasets.dota_split import Source, find_sources
from perception.datasets.images import UnreadableImageError
from perception.datasets.windows import WholeImage
from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.geometry.level_merging import to_native
from perception.geometry.pyramid import contexts_of, pyramid
from perception.geometry.rotated_boxes import box_corners
from perception.ops.box_iou_rotated import box_iou_rotated
from projects.hbd_net.context import LoadContext, RandomFlipWithContext
from projects.hbd_net.patches import GLHBridge, GLHBridgePyramid, GLHBridgeWithContext
from projects.hbd_net.split import PyramidParams, reduced_images, split
from tests.conftest import REPOSITORY

SMALL = dict(size=128, gap=28, context_threshold=100.0)
LONG, SHORT, THIN = [300.0, 200, 360, 16, 0.3], [70.0, 60, 30, 10, -0.5], [400.0, 300, 40, 1, 0.0]


def corners_of(*boxes):
    return box_corners(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5)).numpy()


def write_image(folder, name, width, height, *boxes, difficulty=0):
    """A smooth picture with its labels, and its pixels."""
    for part in ("images", "labelTxt"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 255 / width, rows * 255 / height, (rows + columns) % 200], -1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    labels = Labels(corners_of(*boxes), ("bridge",) * len(boxes), (difficulty,) * len(boxes))
    (folder / "labelTxt" / f"{name}.txt").write_text(format_labels(labels))
    return pixels


def cut(folder, out, open_image=WholeImage, **changes):
    return split(find_sources([folder], "labelTxt"), out, PyramidParams(**{**SMALL, **changes}), open_image=open_image)


def rgb(path):
    return cv2.imread(str(path))[..., ::-1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A scene of 601 x 430 pixels and what is cut from it."""
    root = tmp_path_factory.mktemp("pyramid")
    write_image(root / "scene", "a__b", 601, 430, LONG, SHORT, THIN)
    write_image(root / "scene", "empty", 200, 90)
    cut(root / "scene", root / "train")
    cut(root / "scene", root / "test", levels="all", context_threshold=0)
    return root


# ------------------------------------------------------------------------------------------------------------ cutting


def test_levels_of_training_and_testing():
    train, test = PyramidParams(), PyramidParams(levels="all")
    factors = {
        (3008, 3008): ([1, 2], [1, 2, 4]),
        (2048, 2048): ([1, 2], [1, 2]),
        (16384, 16384): ([1, 2, 4, 8, 16], [1, 2, 4, 8, 16]),
        (6402, 525): ([1], [1, 2, 4, 8]),
        (800, 1024): ([1], [1]),
        (40000, 40000): ([1, 2, 4, 8, 16], [1, 2, 4, 8, 16, 32, 64]),
    }
    for size, expected in factors.items():
        assert tuple([level.factor for level in params.levels_of(*size)] for params in (train, test)) == expected


def test_patches_are_parts_of_their_level(folders):
    pixels = rgb(folders / "scene" / "images" / "a__b.png")
    reduced = {1: pixels, **reduced_images(WholeImage(folders / "scene" / "images" / "a__b.png"), [2, 4], "area")}
    assert reduced[2].shape == (215, 300, 3)
    mean = pixels[:, :600].reshape(215, 2, 300, 2, 3).mean((1, 3))
    assert np.abs(reduced[2] - mean).max() <= 0.5
    seen = 0
    for factor, name in ((1, "native"), (2, "down2")):
        files = sorted((folders / "train" / name / "images").glob("a__b__*.png"))
        for path in files:
            x, y = (int(value) for value in path.stem.partition("__128__")[2].split("___"))
            expected = reduced[factor][y : y + 128, x : x + 128]
            patch = rgb(path)
            assert patch.shape == (128, 128, 3)
            assert np.array_equal(patch[: len(expected), : expected.shape[1]], expected)
            labels = read_labels(folders / "train" / name / "annfiles" / f"{path.stem}.txt")
            whole = corners_of(LONG, SHORT, THIN) / factor
            for quad, level in zip(labels.corners + np.array([x, y]), labels.difficulty):
                distance = np.abs(whole - quad).max((1, 2))
                assert distance.min() < 1e-3
                reaches_out = ((quad - (x, y) < 0) | (quad - (x, y) > 128)).any()
                assert level == (2 if reaches_out else 0)
            seen += len(labels.classes)
    assert seen > 8
    assert not (folders / "train" / "down4").exists()  # 150 x 107 does not fill a window
    tested = sorted(path.name for path in (folders / "test").iterdir() if path.is_dir())
    assert tested == ["down2", "down4", "down8", "native"]
    empty = rgb(folders / "train" / "native" / "images" / "empty__128__0___0.png")
    assert empty[100].reshape(-1, 3).tolist() == [[124, 116, 104]] * 128


def test_bilinear_is_the_released_sampling(folders):
    pixels = rgb(folders / "scene" / "images" / "a__b.png")
    reduced = reduced_images(WholeImage(folders / "scene" / "images" / "a__b.png"), [4], "bilinear")[4]
    blocks = pixels[:428, :600].reshape(107, 4, 150, 4, 3)
    assert np.abs(reduced - blocks[:, 1:3, :, 1:3].mean((1, 3))).max() <= 0.51
    levels = torch.from_numpy(pixels[:428, :600].copy()).permute(2, 0, 1)[None].float()
    released = torch.nn.functional.interpolate(levels, scale_factor=0.25, mode="bilinear", align_corners=False)
    assert np.abs(reduced - released[0].permute(1, 2, 0).numpy()).max() <= 0.51


def test_crops_show_what_is_around_a_patch(folders):
    contexts = folders / "train" / "native" / "contexts"
    with_long = [path.stem for path in sorted(contexts.glob("*.json"))]
    labelled = {
        path.stem
        for path in (folders / "train" / "native" / "annfiles").glob("*.txt")
        if any(np.ptp(quad, axis=0).max() > 100 for quad in read_labels(path).corners)
    }
    assert set(with_long) == labelled
    assert len(labelled) == 2
    for stem in with_long:
        patch = rgb(folders / "train" / "native" / "images" / f"{stem}.png").astype(float)
        x, y = (int(value) for value in stem.partition("__128__")[2].split("___"))
        places = json.loads((contexts / f"{stem}.json").read_text())
        for place, expected in zip(places, contexts_of(601, 430, x, y, 128), strict=True):
            assert (place["factor"], place["left"], place["top"]) == (expected.factor, expected.left, expected.top)
            crop = rgb(contexts / f"{stem}__down{place['factor']}.png")
            assert crop.shape[:2] == (place["height"], place["width"])
            left, top = (round(place["inside"][k] * place[side]) for k, side in enumerate(("width", "height")))
            scale = 1 / place["factor"]
            small = cv2.resize(patch[: 430 - y, : 601 - x], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            shown = crop[top : top + len(small), left : left + small.shape[1]]
            red_green = np.abs(shown - small[: len(shown), : shown.shape[1]])[..., :2]
            assert red_green.max() < 4  # a place is whole pixels of the reduced image
            quads = read_labels(contexts / f"{stem}__down{place['factor']}.txt").corners
            back = (quads + np.array([place["left"], place["top"]])) * place["factor"]
            assert np.abs(back - corners_of(LONG)).max((1, 2)).min() < 1e-2


def test_interrupted_run_goes_on_to_the_same_bytes(folders, tmp_path):
    whole, out = folders / "train", tmp_path / "train"
    opened = []

    def interrupted(path):
        opened.append(path.stem)
        if opened.count("empty") == 2:  # between its reduced levels and its native patches
            raise KeyboardInterrupt
        return WholeImage(path)

    with pytest.raises(KeyboardInterrupt):
        cut(folders / "scene", out, interrupted)
    assert not out.exists()
    with pytest.raises(ValueError, match="none of 2"):
        cut(folders / "scene", tmp_path / "other", _broken)
    before = len(opened)
    summary = cut(folders / "scene", out, interrupted)
    assert opened[before:] == ["empty", "empty"]
    assert summary.created
    files = [sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in (whole, out)]
    assert files[0] == files[1]
    assert all((whole / path).read_bytes() == (out / path).read_bytes() for path in files[0])
    assert not cut(folders / "scene", out).created
    with pytest.raises(FileExistsError, match="--overwrite"):
        cut(folders / "scene", out, gap=30)
    assert list(tmp_path.glob(".train*")) == []


def _broken(path):
    raise UnreadableImageError("damaged")


def test_unreadable_images_and_labels_are_left_out(folders, tmp_path):
    scene = tmp_path / "scene"
    shutil.copytree(folders / "scene", scene)
    write_image(scene, "bad_labels", 300, 300)
    (scene / "labelTxt" / "bad_labels.txt").write_text("1 2 3\n")
    said, calls = [], []

    def open_image(path):
        calls.append(path.stem)
        # Damaged at the second look, when patches of its reduced levels are there already.
        return _broken(path) if calls.count("a__b") == 2 and path.stem == "a__b" else WholeImage(path)

    params = PyramidParams(**SMALL)
    sources = find_sources([scene], "labelTxt")
    summary = split(sources, tmp_path / "out", params, open_image=open_image, on_problem=said.append)
    assert summary.counts["all"] == {"images": 1, "unreadable": 2}
    assert ["a__b.png is left out: damaged" in said[0], "bad_labels.txt, line 1" in said[1]] == [True, True]
    assert {path.name.partition("__128")[0] for path in (tmp_path / "out").rglob("*.png")} == {"empty"}


def test_windows_read_one_by_one_are_the_same(folders, tmp_path, monkeypatch):
    """Whatever the reader; Pillow's limit, which GLH-Bridge's images exceed, is off where images are read."""
    from perception.inference.images.raster import open_windows

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as another library may set it
    cut(folders / "scene", tmp_path / "out", open_windows)
    for path in (folders / "train").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(folders / "train")).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(gap=1024), "not 1024 with size 1024"),
        (dict(levels="some"), "'some'"),
        (dict(object_share=1.5), "object_share"),
        (dict(context_share=-1), "context_share"),
        (dict(context_threshold=float("nan")), "context_threshold"),
        (dict(resampling="nearest"), "'nearest'"),
        (dict(pad=(300, 0, 0)), "pad"),
    ],
)
def test_impossible_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PyramidParams(**change)


# ------------------------------------------------------------------------------------------------------------ loading


def recipe(name):
    """A recipe's configuration, whose pipelines name what is registered."""
    init_default_scope("mmrotate")
    return load_config(str(REPOSITORY / "configs" / f"{name}.py"), {})


def with_context(folders, **changes):
    cfg = recipe("hbd_net").train_dataloader.dataset
    settings = dict(
        data_root=str(folders / "train"),
        ann_file="native/annfiles/",
        data_prefix=dict(img_path="native/images/", context="native/contexts/"),
        context_threshold=100,
        filter_cfg=cfg.filter_cfg,
        pipeline=cfg.pipeline,
    )
    return GLHBridgeWithContext(**{**settings, **changes})


def test_thin_objects_are_left_out(folders):
    boxes = dict(data_root=str(folders / "scene"), ann_file="labelTxt/", data_prefix=dict(img_path="images/"))
    assert [len(one["instances"]) for one in GLHBridge(**boxes, serialize_data=False).data_list] == [2, 0]
    assert [len(one["instances"]) for one in GLHBridge(**boxes, min_side=0, serialize_data=False).data_list] == [3, 0]
    assert GLHBridge(**boxes).metainfo["classes"] == ("bridge",)


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "diagonal", None])
def test_patch_and_crops_stay_together(folders, direction):
    """Boxes and pixels of the crops are where the patch's are, however it is flipped."""
    dataset = with_context(folders)
    for step in dataset.pipeline.transforms:
        if isinstance(step, RandomFlipWithContext):
            step.prob, step.direction = (0.0, "horizontal") if direction is None else (1.0, direction)
    around = 0
    for k in range(len(dataset)):
        packed = dataset[k]
        crops, patch = packed["context"], packed["data_samples"]
        lengths = patch.gt_instances.bboxes.tensor[:, 2:4].amax(1)
        assert (crops is not None) == bool((lengths >= 100).any())
        if crops is None:
            continue
        for image, place, found in zip(crops.images, crops.contexts, crops.samples):
            around += 1
            left, top = place.inside[0] * image.shape[-1], place.inside[1] * image.shape[-2]
            scale = place.factor
            boxes = found.gt_instances.bboxes.tensor.clone()
            boxes[:, :2] = (boxes[:, :2] - torch.tensor([left, top])) * scale
            boxes[:, 2:4] *= scale
            longest = patch.gt_instances.bboxes.tensor[lengths.argmax()][None]
            assert box_iou_rotated(boxes, longest).max() > 0.85
            assert boxes[:, 2:4].amax(1).min() >= 15 * scale
            x, y = round(left), round(top)
            side = 128 // scale
            shown = image[1:, y : y + side, x : x + side].float()
            small = torch.nn.functional.avg_pool2d(packed["inputs"][1:].float(), scale)
            inside = (small - torch.tensor([116.0, 124.0])[:, None, None]).abs().amin(0) > 3
            difference = (shown - small[:, : shown.shape[1], : shown.shape[2]]).abs().amax(0)
            assert difference[inside[: shown.shape[1], : shown.shape[2]]].quantile(0.9) < 4
    assert around == 4


def test_context_goes_with_long_objects_only(folders):
    dataset = with_context(folders, context_threshold=1000)
    assert all(dataset[k]["context"] is None for k in range(len(dataset)))
    with pytest.raises(UserError, match=r"objects of at least 20 pixels have no crops.*--context-threshold 20"):
        with_context(folders, context_threshold=20)


def test_folder_of_context_has_to_be_named(folders):
    with pytest.raises(UserError, match="data_prefix of the data set lacks context"):
        with_context(folders, data_prefix=dict(img_path="native/images/"))


def test_damaged_context_is_named(folders, tmp_path):
    shutil.copytree(folders / "train", tmp_path / "train")
    contexts = tmp_path / "train" / "native" / "contexts"
    first = sorted(contexts.glob("*.json"))[0]
    for text, message in (("{", "does not say where crops lie"), ("[{}]", "does not say where crops lie")):
        first.write_text(text)
        with pytest.raises(UserError, match=message):
            with_context(tmp_path)
    first.write_bytes((folders / "train" / "native" / "contexts" / first.name).read_bytes())
    (contexts / f"{first.stem}__down2.png").unlink()
    with pytest.raises(UserError, match=r"is missing: .*__down2\.png"):
        with_context(tmp_path)


def test_patches_of_all_levels_for_testing(folders):
    pipeline = recipe("hbd_net/fuse_at_test").test_dataloader.dataset.pipeline
    settings = dict(data_root=str(folders / "test"), data_prefix=dict(img_path=""), pipeline=pipeline)
    every = GLHBridgePyramid(**settings)
    counts = {}
    for k in range(len(every)):
        info = every.get_data_info(k)
        counts[info["factor"]] = counts.get(info["factor"], 0) + 1
    sizes = {"a__b": (601, 430), "empty": (200, 90)}
    expected = {}
    for size in sizes.values():
        for level in pyramid(*size, 128):
            expected[level.factor] = expected.get(level.factor, 0) + len(level.windows(128, 28))
    assert counts == expected
    assert len(GLHBridgePyramid(**settings, factors=(1,))) == expected[1]
    fused = GLHBridgePyramid(**settings, context=True)
    packed = [fused[k] for k in range(len(fused))]
    assert [one["context"] is not None for one in packed] == [one["data_samples"].factor == 1 for one in packed]
    with pytest.raises(UserError, match="no folder native"):
        GLHBridgePyramid(data_root=str(folders), data_prefix=dict(img_path="scene"), pipeline=pipeline)
    with pytest.raises(UserError, match="--context-threshold 0"):
        GLHBridgePyramid(**{**settings, "data_root": str(folders / "train")}, context=True)


def test_transforms_say_what_they_do(folders):
    assert "LoadImage" in repr(LoadContext([dict(type="LoadImage")]))
    assert isinstance(LoadContext([dict(type="LoadImage")]).load, Compose)


def test_labels_of_other_habits_end_in_a_sentence(folders, tmp_path):
    """Names in other letters, decimal commas, a class in front; header lines, commas, no difficulty and no objects are
    understood."""
    scene = tmp_path / "scene"
    shutil.copytree(folders / "scene", scene)
    label = scene / "labelTxt" / "a__b.txt"
    quad = "10 10 60 10 60 30 10 30"
    for text, message in (
        (f"{quad} Bridge 0", "class 'Bridge' .'bridge'.."),
        (f"{quad.replace(' ', ',5 ')},5 bridge 0", "line 1: expected 8 coordinates"),
        (f"0 {quad}", "class '30'"),
    ):
        label.write_text(text)
        with pytest.raises(UserError, match=message):
            GLHBridge(data_root=str(scene), ann_file="labelTxt/", data_prefix=dict(img_path="images/"))
    commas = f"{quad.replace(' ', ',')},bridge,0\n"
    label.write_text(f"imagesource:GoogleEarth\ngsd:0.5\n{quad} bridge\n{quad} bridge 2\n{commas}")
    read = GLHBridge(data_root=str(scene), ann_file="labelTxt/", data_prefix=dict(img_path="images/"))
    assert [len(read.get_data_info(k)["instances"]) for k in range(2)] == [3, 0]


def test_sources_without_labels(folders, tmp_path):
    sources = [Source(path, None) for path in sorted((folders / "scene" / "images").iterdir())]
    split(sources, tmp_path / "out", PyramidParams(**SMALL, levels="all"), open_image=WholeImage)
    names = sorted(path.name for path in (tmp_path / "out" / "native").iterdir())
    assert names == ["images"]
    assert math.isclose(to_native(torch.zeros(1, 6), (3, 4), 4)[0, 1], 16)
