"""The built-in aerial scenes: exact boxes, DOTA's format, readable by others' code."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from mmrotate.datasets import DOTADataset
from pycocotools.coco import COCO

from perception.datasets.synthetic import aerial, harbours, outlines
from perception.datasets.synthetic.harbour_layouts import LAYOUTS
from perception.datasets.synthetic.harbours import EASY_LENGTH, EASY_VISIBLE, HARBOUR_CLASSES, Params

SMALL = Params(num_train=8, num_val=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("harbours") / "data"
    harbours.write(root, SMALL)
    return root


def labels(root, split, index, folder="annfiles"):
    lines = (root / split / folder / f"{split}_{index:06d}.txt").read_text().splitlines()
    return [line.split() for line in lines]


@pytest.mark.parametrize("kind", HARBOUR_CLASSES)
def test_an_outline_touches_all_sides_of_its_box(kind):
    item = aerial.AerialObject(kind, (60.0, 50.0), 40.0, 24.0, 0.7, (1, 1, 1), (0, 0, 0), 0)
    body = shapely.Polygon(aerial.body_of(item)[0])
    corners = aerial.corners_of(item)
    box = shapely.Polygon(corners)
    assert body.is_valid
    assert body.difference(box).area < 1e-6
    for start, end in zip(corners, np.roll(corners, -1, axis=0)):
        assert shapely.LineString([start, end]).distance(body) < 1e-6
    # The angle turns clockwise as seen: the front side's middle lies to the lower right.
    front = corners[1:3].mean(axis=0)
    np.testing.assert_allclose(front, [60 + 20 * np.cos(0.7), 50 + 20 * np.sin(0.7)])
    assert box.area == pytest.approx(40 * 24)
    edges = np.roll(corners, -1, axis=0) - corners
    assert edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0] > 0  # clockwise with y down


def test_what_an_object_changes_lies_in_its_box():
    for index in range(6):
        scene = replace(harbours.scene_of(Params(), "val", index), trees=())
        image, _ = harbours.render(scene)
        empty, _ = harbours.render(replace(scene, objects=()))
        difference = np.abs(image.astype(int) - empty).max(axis=-1)
        shadow = cv2.dilate(_covered(scene), np.ones((25, 25), np.uint8))
        assert not difference[shadow == 0].any()
        for item in scene.objects:
            stamp = outlines.rasterise(aerial.body_of(item))
            picture, own = stamp.clip(scene.height, scene.width)
            inside = difference[picture][stamp.coverage[own] > 0.5]
            assert (inside > 8).mean() > 0.6, item.kind


def _covered(scene):
    covered = np.zeros((scene.height, scene.width), np.uint8)
    for item in scene.objects:
        stamp = outlines.rasterise(aerial.body_of(item))
        picture, own = stamp.clip(scene.height, scene.width)
        covered[picture] |= (stamp.coverage[own] > 0).astype(np.uint8)
    return covered


def test_files_hold_the_scene(data):
    for split, number in (("train", 8), ("val", 3)):
        for folder in ("images", "labelTxt", "annfiles"):
            assert len(list((data / split / folder).iterdir())) == number
        for index in range(number):
            scene = harbours.scene_of(SMALL, split, index)
            image, visible = harbours.render(scene)
            stored = cv2.imread(str(data / split / "images" / f"{split}_{index:06d}.png"))[..., ::-1]
            np.testing.assert_array_equal(stored, image)
            raw = labels(data, split, index, "labelTxt")
            assert [line[0].split(":")[0] for line in raw[:2]] == ["imagesource", "gsd"]
            assert raw[2:] == labels(data, split, index)
            assert [line[8] for line in raw[2:]] == [item.kind for item in scene.objects]
            expected = [aerial.corners_of(item).ravel() for item in scene.objects]
            np.testing.assert_allclose(np.array([line[:8] for line in raw[2:]], float), expected, atol=0.00006)
            hard = [
                share < EASY_VISIBLE or max(item.length, item.width) < EASY_LENGTH
                for share, item in zip(visible, scene.objects)
            ]
            assert [line[9] for line in raw[2:]] == [str(int(flag)) for flag in hard]


def test_masks_are_what_one_sees(tmp_path):
    """In COCO's format: every pixel of a mask shows its object and every other one does not, to half a pixel."""
    params = Params(num_train=3, num_val=2, format="coco")
    harbours.write(tmp_path / "data", params)
    for split, number in (("train", 3), ("val", 2)):
        index = COCO(tmp_path / "data" / "annotations" / f"instances_{split}.json")
        assert [entry["name"] for entry in index.dataset["categories"]] == list(HARBOUR_CLASSES)
        assert len(index.imgs) == number
        for image in index.imgs.values():
            scene = harbours.scene_of(params, split, image["id"] - 1)
            pixels, visible = harbours.render(scene)
            stored = cv2.imread(str(tmp_path / "data" / "images" / split / image["file_name"]))[..., ::-1]
            assert stored.shape == pixels.shape == (image["height"], image["width"], 3)
            assert np.abs(stored.astype(int) - pixels).mean() < 4  # JPEG
            entries = index.imgToAnns[image["id"]]
            masks = [index.annToMask(entry).astype(bool) for entry in entries]
            assert len(entries) == len(scene.objects)
            assert sum(mask.astype(int) for mask in masks).max() == 1
            trees = np.zeros(pixels.shape[:2], bool)
            for tree in scene.trees:
                stamp = outlines.rasterise(aerial.crown_of(tree))
                picture, own = stamp.clip(scene.height, scene.width)
                trees[picture] |= stamp.coverage[own] >= 0.5
            full = [_full(item, scene) for item in scene.objects]
            for k, (entry, mask, item, share) in enumerate(zip(entries, masks, scene.objects, visible)):
                assert HARBOUR_CLASSES[entry["category_id"] - 1] == item.kind
                above = np.any([trees, *full[k + 1 :]], 0)
                np.testing.assert_array_equal(mask, full[k] & ~above)
                rows, columns = np.nonzero(mask)
                assert entry["area"] == len(rows)
                assert entry["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert entry["iscrowd"] == (share < EASY_VISIBLE or max(item.length, item.width) < EASY_LENGTH)
                body = shapely.Polygon(aerial.body_of(item)[0])
                assert full[k].sum() == pytest.approx(
                    body.intersection(shapely.box(0, 0, scene.width, scene.height)).area, abs=0.5 * body.length
                )
            # Without its objects, the picture differs where masks are.
            empty, _ = harbours.render(replace(scene, objects=()))
            assert (np.abs(pixels.astype(int) - empty).max(-1)[np.any(masks, 0)] > 8).mean() > 0.7


def _full(item, scene):
    stamp = outlines.rasterise(aerial.body_of(item))
    picture, own = stamp.clip(scene.height, scene.width)
    mask = np.zeros((scene.height, scene.width), bool)
    mask[picture] = stamp.coverage[own] >= 0.5
    return mask


def test_formats(tmp_path):
    with pytest.raises(ValueError, match="format must be one of dota, coco, not 'yolo'"):
        Params(format="yolo")
    few = dict(num_train=1, num_val=1, min_size=96, max_size=96)
    harbours.write(tmp_path / "data", Params(**few))
    assert "format" not in (tmp_path / "data" / "dataset.json").read_text()  # as before there was a choice
    with pytest.raises(FileExistsError, match="format None, not coco"):
        harbours.write(tmp_path / "data", Params(**few, format="coco"))
    assert not harbours.write(tmp_path / "data", Params(**few)).created


def test_objects_are_clear_and_crowded_and_every_class_occurs():
    kinds, difficult, crowded, hidden = Counter(), 0, 0, 0
    for index in range(2 * len(LAYOUTS)):
        scene = harbours.scene_of(Params(), "train", index)
        _, visible = harbours.render(scene)
        kinds.update(item.kind for item in scene.objects)
        difficult += (visible < EASY_VISIBLE).sum()
        hulls = [shapely.box(*shapely.Polygon(aerial.corners_of(item)).bounds) for item in scene.objects]
        boxes = [shapely.Polygon(aerial.corners_of(item)) for item in scene.objects]
        for i, item in enumerate(scene.objects):
            centre = np.array(item.centre)
            assert ((centre >= 0) & (centre < (scene.width, scene.height))).all()
            others = [j for j in range(i) if scene.objects[j].kind == item.kind == "ship"]
            crowded += any(_iou(hulls[i], hulls[j]) > 0.2 for j in others)
            assert all(_iou(boxes[i], boxes[j]) < 0.1 for j in others)
            full = shapely.Polygon(aerial.body_of(item)[0])
            inside = full.intersection(shapely.box(0, 0, scene.width, scene.height)).area / full.area
            assert visible[i] <= inside + 0.03
            hidden += visible[i] < inside - 0.1
    assert kinds.keys() == set(HARBOUR_CLASSES)
    assert crowded > 20
    assert hidden > 0
    assert 0 < difficult < 0.15 * sum(kinds.values())


def _iou(first, second):
    return first.intersection(second).area / first.union(second).area


def test_mmrotate_reads_it(data):
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
    from mmrotate.datasets.transforms import ConvertBoxType

    dataset = DOTADataset(
        data_root=str(data / "train"),
        ann_file="annfiles/",
        data_prefix={"img_path": "images/"},
        metainfo=harbours.METAINFO,
        diff_thr=0,
        filter_cfg={"filter_empty_gt": True},
        pipeline=[
            {"type": LoadImageFromFile},
            {"type": LoadAnnotations, "with_bbox": True, "box_type": "qbox"},
            {"type": ConvertBoxType, "box_type_mapping": {"gt_bboxes": "rbox"}},
            {"type": PackDetInputs},
        ],
    )
    assert dataset.metainfo["classes"] == HARBOUR_CLASSES
    assert set(HARBOUR_CLASSES) <= set(DOTADataset.METAINFO["classes"])
    assert len(dataset) == 8
    for index in range(8):
        sample = dataset[index]["data_samples"]
        number = int(sample.img_id[-6:])
        scene = harbours.scene_of(SMALL, "train", number)
        flags = [line[9] == "1" for line in labels(data, "train", number)]
        for instances, flag in ((sample.gt_instances, False), (sample.ignored_instances, True)):
            items = [item for item, hard in zip(scene.objects, flags) if hard == flag]
            assert instances.labels.tolist() == [HARBOUR_CLASSES.index(item.kind) for item in items]
            for item, box in zip(items, instances.bboxes.convert_to("qbox").tensor.reshape(-1, 4, 2).numpy()):
                expected = shapely.Polygon(aerial.corners_of(item))
                assert _iou(shapely.Polygon(box), expected) > 0.98


def test_same_seed_same_files_and_an_image_does_not_depend_on_how_many_there_are(data, tmp_path):
    harbours.write(tmp_path / "more", replace(SMALL, num_train=10))
    harbours.write(tmp_path / "other", replace(SMALL, seed=1))
    for path in data.rglob("*_0*.*"):
        name = path.relative_to(data)
        assert path.read_bytes() == (tmp_path / "more" / name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_objects_keep_their_size_in_large_pictures():
    scene = harbours.scene_of(Params(min_size=1024, max_size=1024), "train", 0)
    image, visible = harbours.render(scene)
    assert image.shape == (1024, 1024, 3)
    assert len(visible) > 150
    assert max(item.length for item in scene.objects) <= 90
