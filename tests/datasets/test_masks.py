"""Segmentations as masks: COCO's rule for polygons, all three forms, parts that are none, and cutting into patches."""

import json
import pickle

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

import perception.datasets.coco  # noqa: F401  (registers CocoObjects)
from perception.datasets.coco_patches import PatchParams, patches_of, split_coco
from perception.datasets.dota import Patch
from perception.datasets.masks import MaskCrop, PackedMask, object_mask
from perception.datasets.windows import Window
from perception.engine.errors import UserError

TOOL = "dataset_converters/split_coco"


def filled(segmentation, width, height):
    """The whole mask, as `object_mask` has it."""
    mask = object_mask(segmentation, width, height)
    whole = np.zeros((height, width), bool)
    if mask is not None:
        rows, columns = mask.inside.shape
        whole[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.inside
    return whole


def by_coco(polygons, width, height):
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))).astype(bool)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (1, 30), (13, 7), (160, 240)])
def test_packed_masks_are_the_same(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    plain = MaskCrop(11, 5, np.hypot(x - 60, y - 40) % 50 < 30)
    packed = pickle.loads(pickle.dumps(PackedMask(MaskCrop(3, 4, plain.inside), 11, 5)))
    assert packed.inside.dtype == bool
    assert packed.bounds() == plain.bounds()
    for one, other in ((packed, plain), (packed.reduced(3), plain.reduced(3))):
        assert (one.left, one.top, one.shape) == (other.left, other.top, other.inside.shape)
        assert np.array_equal(one.inside, other.inside)
    windows = [Window(0, 0, 12, 6), Window(5, 0, 60, 90), Window(0, 0, 3, 3)]
    assert all(np.array_equal(packed.within(window), plain.within(window)) for window in windows)
    assert len(pickle.dumps(packed)) < 300 + plain.inside.size / 16


def test_the_rule_of_polygons():
    square = filled([[0, 0, 0, 9, 9, 9, 9, 0]], 100, 100)
    assert square.sum() == 81  # continuous coordinates; a fill that includes the corners has 100
    assert square[:9, :9].all()
    one, other = filled([[2, 2, 7, 2, 7, 9, 2, 9]], 12, 12), filled([[7, 2, 11, 2, 11, 9, 7, 9]], 12, 12)
    assert not (one & other).any()
    assert (one | other)[2:9, 2:11].all()


def test_polygons_are_filled_as_in_the_whole_image():
    """Also those that reach out of it, at fractions of pixels."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        polygons = [rng.uniform(0, 60, 2 * rng.integers(3, 8)).round(2).tolist() for _ in range(rng.integers(1, 3))]
        assert np.array_equal(filled(polygons, 61, 61), by_coco(polygons, 61, 61))
        far = [(np.array(polygon) + 300).tolist() for polygon in polygons]
        assert np.array_equal(filled(far, 361, 361), by_coco(far, 361, 361))
        out = [(np.array(polygon) - 30).tolist() for polygon in polygons]
        assert np.array_equal(filled(out, 31, 31), by_coco(out, 31, 31))


def test_all_forms_are_the_same_mask():
    polygons = [[3.4, 2, 20, 5.5, 14, 18], [20, 20, 26, 20, 26, 28, 20, 28]]
    compressed = rle.merge(rle.frPyObjects(polygons, 30, 40))
    column_runs = np.r_[0, rle.decode(compressed).ravel("F"), 0]
    changes = np.flatnonzero(np.diff(column_runs))
    counts = np.diff(np.r_[0, changes, 30 * 40]).tolist()
    text = dict(size=[30, 40], counts=compressed["counts"].decode())
    forms = [polygons, compressed, text, dict(size=[30, 40], counts=counts)]
    masks = [filled(form, 40, 30) for form in forms]
    assert masks[0].sum() > 100
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    with pytest.raises(ValueError, match=r"run lengths are for \[height, width\] \[30, 40\]"):
        object_mask(text, 30, 40)


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        ([[5, 5, 5, 9], [10, 10, 20, 10, 20, 20, 10, 20]], 100),  # a part that COCO's tools would take for a box
        ([[10, 10, 20, 10, 20, 20, 10, 20], [1, 2, 3]], 100),
        ([[5, 5, 5, 9]], 0),
        ([[5, 5, 5, 9, 5, 12]], 0),  # no area
        ([], 0),
        (None, 0),
        (dict(size=[30, 40], counts=[1200]), 0),
    ],
)
def test_parts_that_are_no_polygons(segmentation, area):
    assert filled(segmentation, 40, 30).sum() == area
    assert (object_mask(segmentation, 40, 30) is None) is (area == 0)


def test_boxes_and_areas_count_the_last_pixel():
    mask = object_mask([[4, 0, 8, 0, 8, 4, 4, 4]], 8, 8)
    assert (mask.bounds(), mask.inside.sum()) == ((4, 0, 8, 4), 16)
    corner = object_mask([[7, 7, 8, 7, 8, 8, 7, 8]], 8, 8)
    assert corner.bounds() == (7, 7, 8, 8)
    line = object_mask([[1, 3, 7, 3, 7, 4, 1, 4]], 8, 8)
    assert line.within(Window(0, 0, 4, 8)).sum() == 3
    assert line.within(Window(0, 4, 8, 4)) is None


# ----------------------------------------------------------------------------------------------------------- patches


@pytest.mark.parametrize(
    ("width", "params", "spans"),
    [
        (1000, PatchParams(), [(0, 512), (384, 896), (488, 1000)]),
        (512, PatchParams(), [(0, 512)]),
        (513, PatchParams(), [(0, 512), (1, 513)]),
        (300, PatchParams(), [(0, 300)]),
        (1500, PatchParams(800, 200), [(0, 800), (600, 1400), (700, 1500)]),
    ],
)
def test_the_published_grid(width, params, spans):
    patches = patches_of(width, 300, params)
    assert [(patch.left, patch.right) for patch in patches] == spans
    assert {(patch.top, patch.bottom) for patch in patches} == {(0, 300)}


def test_patches_cover_whatever_the_size():
    for size in range(1, 60):
        for overlap in (0, 4, 15):
            seen = np.zeros((size, 20), bool)
            for patch in patches_of(20, size, PatchParams(16, overlap)):
                assert patch.width == 16
                assert patch.height == min(size, 16)
                seen[patch.top : patch.bottom, patch.left : patch.right] = True
            assert seen.all()


def aerial(root, change=None):
    """Images of 1000 x 300 and 200 x 100, with polygons and run lengths, a crowd and a line of 1 x 6 pixels."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = {7: ("P0003.png", 1000, 300), 3: ("P0001.png", 200, 100)}
    for name, width, height in sizes.values():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(root / "images" / name)
    long = rle.encode(np.asfortranarray(np.pad(np.ones((20, 900), np.uint8), ((100, 180), (50, 50)))))
    entries = [
        (0, 7, 5, dict(size=[300, 1000], counts=long["counts"].decode()), 0),
        (1, 7, 9, [[300, 200, 420, 210, 410, 280, 305, 270]], 1),
        (2, 7, 9, [[500, 50, 506, 50, 506, 51, 500, 51]], 0),
        (3, 3, 9, [[5, 5, 5, 9], [10, 10, 20, 10, 20, 20, 10, 20]], 0),
        (4, 3, 5, [[5, 5, 5, 9]], 0),
    ]
    content = dict(
        images=[dict(id=key, file_name=name, width=w, height=h) for key, (name, w, h) in sizes.items()],
        categories=[dict(id=9, name="Small_Vehicle"), dict(id=5, name="ship")],
        annotations=[
            dict(id=key, image_id=image, category_id=category, segmentation=mask, iscrowd=crowd, bbox=[1, 1, 5, 5])
            for key, image, category, mask, crowd in entries
        ],
    )
    if change is not None:
        change(content)
    (root / "labels.json").write_text(json.dumps(content))
    return root


def test_patches_hold_pixels_and_masks_of_their_image(run_tool, tmp_path):
    root = aerial(tmp_path / "raw")
    out = tmp_path / "isaid" / "train"
    done = run_tool(TOOL, root / "labels.json", root / "images", "--out", out, "--name", "filtered_train.json")
    assert done.code == 1  # an object has no mask
    assert "1 objects of P0001.png have no mask (no polygon of three points) and are left out: 4" in done.err
    assert "2 images, 4 patches, 9 objects" in done.out
    index = COCO(out / "filtered_train.json")
    assert [entry["name"] for entry in index.dataset["categories"]] == ["Small_Vehicle", "ship"]
    whole = cv2.imread(str(root / "images" / "P0003.png"))
    source = {entry["id"]: entry for entry in json.loads((root / "labels.json").read_text())["annotations"]}
    seen = {0: np.zeros((300, 1000), bool), 1: np.zeros((300, 1000), bool), 2: np.zeros((300, 1000), bool)}
    for image in index.imgs.values():
        patch = Patch.from_name(image["file_name"].removesuffix(".png"))
        pixels = cv2.imread(str(out / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        if patch.image != "P0003":
            assert patch == Patch("P0001", 512, 0, 0)
            continue
        left = patch.x
        assert np.array_equal(pixels, whole[:, left : left + 512])
        for entry in index.imgToAnns[image["id"]]:
            inside = index.annToMask(entry).astype(bool)
            (key,) = [
                k for k in seen
                if (filled(source[k]["segmentation"], 1000, 300)[:, left : left + 512] == inside).all()
            ]  # fmt: skip
            seen[key][:, left : left + 512] |= inside
            assert entry["category_id"] == source[key]["category_id"]
            assert entry["iscrowd"] == source[key]["iscrowd"]
            rows, columns = np.nonzero(inside)
            assert entry["area"] == len(rows)
            assert entry["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    for key, mask in seen.items():
        assert np.array_equal(mask, filled(source[key]["segmentation"], 1000, 300))
    # The line of 1 x 6 pixels is trained on.
    data = DATASETS.build(
        dict(
            type="CocoObjects", ann_file=str(out / "filtered_train.json"), data_prefix=dict(img=str(out / "images")),
            metainfo=dict(classes=("ship", "Small_Vehicle")), pipeline=[],
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )
    )  # fmt: skip
    boxes = [tuple(entry["bbox"]) for k in range(len(data)) for entry in data.get_data_info(k)["instances"]]
    assert (500, 50, 506, 51) in boxes
    assert (
        "already complete"
        in run_tool(TOOL, root / "labels.json", root / "images", "--out", out, "--name", "filtered_train.json").out
    )


def test_images_without_labels(run_tool, tmp_path):
    root = aerial(tmp_path / "raw")
    done = run_tool(
        TOOL, root / "labels.json", root / "images", "--no-labels", "--out", tmp_path / "test",
        "--size", 800, "--overlap", 200,
    )  # fmt: skip
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "test" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [
        "P0001__800__0___0.png", "P0003__800__0___0.png", "P0003__800__200___0.png",
    ]  # fmt: skip
    assert content["annotations"] == []
    assert len(content["categories"]) == 2


def test_faults_are_named_and_leave_nothing(run_tool, tmp_path):
    root = aerial(tmp_path / "raw", lambda content: content["images"][0].update(width=999))
    done = run_tool(TOOL, root / "labels.json", root / "images", "--out", tmp_path / "one")
    assert done.code == 1
    assert "P0003.png is left out: it has 1000 x 300 pixels, but annotations of an image of 999 x 300" in done.err
    assert [path.name for path in (tmp_path / "one" / "images").iterdir()] == ["P0001__512__0___0.png"]

    (root / "images" / "P0001.png").write_bytes((root / "images" / "P0001.png").read_bytes()[:200])
    done = run_tool(TOOL, root / "labels.json", root / "images", "--out", tmp_path / "two")
    assert "none of 2 images could be read" in done.err
    assert not (tmp_path / "two").exists()

    def other_size(content):
        content["annotations"][0]["segmentation"]["size"] = [1000, 300]

    def another_class(content):
        content["annotations"][1]["category_id"] = 1

    def in_folders(content):
        content["images"][0].update(file_name="b/1.png")
        content["images"][1].update(file_name="a/1.png")

    for number, (change, message) in enumerate(
        (
            (other_size, "object 0 of the annotations: run lengths are for [height, width] [1000, 300]"),
            (another_class, "object 1 has the category 1, which the file does not list"),
            (in_folders, "would both become 1__...png"),
        )
    ):
        root = aerial(tmp_path / f"raw{number}", change)
        done = run_tool(TOOL, root / "labels.json", root / "images", "--out", tmp_path / "three")
        assert done.code == 1
        assert message in done.err
        assert not (tmp_path / "three").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        split_coco(root / "labels.json", tmp_path / "empty", tmp_path / "x", PatchParams(labelled=False))
    for arguments, message in (
        (("--overlap", 512), "below the size, not 512 with 512"),
        (("--object-share", 1), "object_share must be at least 0 and below 1"),
        (("--name", "a/b.json"), "--name must be the name of a .json file"),
    ):
        assert message in run_tool(TOOL, root / "labels.json", root / "images", "--out", tmp_path / "y", *arguments).err
