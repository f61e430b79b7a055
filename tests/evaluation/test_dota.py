"""DOTA's metric: patches become whole images, files are complete, mistakes are told before the last image."""

import zipfile
from collections import defaultdict

import cv2
import numpy as np
import pytest
import shapely
import torch
from mmengine.structures import InstanceData
from mmrotate.registry import METRICS

from perception.datasets.dota import Labels, Patch, format_labels, read_labels
from perception.datasets.dota_split import SplitParams, find_sources, split
from perception.datasets.synthetic import aerial, harbours
from perception.datasets.synthetic.harbours import HARBOUR_CLASSES
from perception.engine.errors import UserError
from perception.evaluation.dota import DOTATask1Metric
from perception.evaluation.rotated_ap import Found
from perception.evaluation.task1 import merge_patches, write_task1
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.polygons import rotated_box_corners
from tests.evaluation import reference
from tests.evaluation.test_rotated_ap import boxes_of


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two large scenes cut at three scales.

    Objects cross the border. Every fourth one is difficult, and all that lie outside for more than 30%, for which they
    belong to no patch.
    """
    root = tmp_path_factory.mktemp("scenes")
    raw = root / "raw"
    (raw / "images").mkdir(parents=True)
    (raw / "labelTxt").mkdir()
    for k, name in enumerate(("P1", "odd__9__8___7__name")):
        scene = harbours.scene_of(harbours.Params(min_size=600, max_size=640), "val", k)
        corners = np.array([aerial.corners_of(item) for item in scene.objects])
        shares = shares_within(corners, scene.width, scene.height)
        difficult = (shares < 0.7) | (np.arange(len(shares)) % 4 == 0)
        labels = Labels(corners, tuple(item.kind for item in scene.objects), tuple(difficult.astype(int)))
        image, _ = harbours.render(scene)
        (raw / "images" / f"{name}.png").write_bytes(_png(image))
        (raw / "labelTxt" / f"{name}.txt").write_text("imagesource:x\ngsd:0.5\n" + format_labels(labels))
    params = SplitParams(sizes=(256,), gaps=(128,), rates=(0.5, 1.0, 1.5))
    split(find_sources([raw], "labelTxt"), root / "patches", params)
    return root


def shares_within(corners, width, height):
    """The share of each object that lies in the image."""
    objects = [shapely.Polygon(quad) for quad in corners]
    return np.array([one.intersection(shapely.box(0, 0, width, height)).area / one.area for one in objects])


def _png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def sample(name, boxes, scores, labels, truth=None, ignored=None):
    """What a detector gives to a metric."""
    found = InstanceData(
        bboxes=torch.tensor(np.asarray(boxes).reshape(-1, 5), dtype=torch.float32),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
    values = {"img_id": name, "pred_instances": found.to_dict(), "gt_instances": {}, "ignored_instances": {}}
    for key, part in (("gt_instances", truth), ("ignored_instances", ignored)):
        if part is not None:
            corners = torch.tensor(np.asarray(part[0]).reshape(-1, 5), dtype=torch.float32)
            values[key] = {"bboxes": corners, "labels": torch.tensor(part[1], dtype=torch.int64)}
    return values


def perfect(scenes):
    """The labels of all patches as detections."""
    for path in sorted((scenes / "patches" / "annfiles").iterdir()):
        labels = read_labels(path)
        numbers = [HARBOUR_CLASSES.index(name) for name in labels.classes]
        yield sample(path.stem, boxes_of(labels.corners), np.ones(len(numbers)), numbers)


def run(metric, samples, classes=HARBOUR_CLASSES):
    metric.dataset_meta = {"classes": classes}
    samples = list(samples)
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


def test_cut_then_merged_the_truth_is_perfect(scenes, tmp_path):
    raw, out = scenes / "raw" / "labelTxt", tmp_path / "new" / "submission"
    metric = METRICS.build(
        {
            "type": "mmrotate.DOTATask1Metric",
            "merge_patches": True,
            "label_folder": str(raw),
            "iou_thrs": [0.5, 0.75],
            "outfile_prefix": str(out),
        }
    )
    assert run(metric, perfect(scenes)) == {"dota/mAP": 1.0, "dota/AP50": 1.0, "dota/AP75": 1.0}

    # Every object of which the image holds 70% is written once, where it is.
    written = defaultdict(list)
    for name in HARBOUR_CLASSES:
        for line in (out / f"Task1_{name}.txt").read_text().splitlines():
            image, score, *corners = line.split()
            assert score == "1.0000"
            written[image, name].append(np.array(corners, float).reshape(4, 2))
    total = crossing = difficult = outside = 0
    for path in raw.iterdir():
        labels = read_labels(path)
        height, width = cv2.imread(str(scenes / "raw" / "images" / f"{path.stem}.png")).shape[:2]
        shares = shares_within(labels.corners, width, height)
        for name in HARBOUR_CLASSES:
            wanted = labels.corners[(np.array(labels.classes) == name) & (shares >= 0.7)]
            assert len(written[path.stem, name]) == len(wanted)
            for quad in wanted:
                assert max(reference.overlap(quad, other) for other in written[path.stem, name]) > 0.99
            total += len(wanted)
        crossing += ((shares >= 0.7) & (shares < 0.999) & (np.array(labels.difficulty) == 0)).sum()
        difficult += ((shares >= 0.7) & (np.array(labels.difficulty) == 1)).sum()
        outside += (shares < 0.7).sum()
    assert total > 100
    assert min(crossing, difficult, outside) > 3
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"Task1_{name}.txt" for name in HARBOUR_CLASSES)
        for name in archive.namelist():
            assert archive.read(name) == (out / name).read_bytes()


def test_difficult_objects_of_the_source_neither_help_nor_hurt(scenes):
    """Found first or not at all, they change nothing, whether the rest is perfect or half missing behind mistakes."""

    def score(*, find_difficult, spoil):
        metric = DOTATask1Metric(merge_patches=True, label_folder=str(scenes / "raw" / "labelTxt"))
        return run(metric, detections(find_difficult, spoil))["dota/AP50"]

    def detections(find_difficult, spoil):
        for path in sorted((scenes / "patches" / "annfiles").iterdir()):
            patch, labels = Patch.from_name(path.stem), read_labels(path)
            source = read_labels(scenes / "raw" / "labelTxt" / f"{patch.image}.txt")
            # A patch says 2 of all that reach out of it: the source knows which ones are difficult.
            there = labels.corners + np.array([patch.x, patch.y])
            origin = np.abs(there[:, None] - source.corners).max(axis=(2, 3)).argmin(axis=1)
            difficult = np.array(source.difficulty)[origin] == 1
            lost = spoil & ~difficult & (origin % 3 == 0)
            kept = np.flatnonzero(~lost & (find_difficult | ~difficult))
            boxes = boxes_of(labels.corners).reshape(-1, 5)[kept]
            scores = np.where(difficult[kept], 0.9, 0.5)
            numbers = np.array([HARBOUR_CLASSES.index(labels.classes[k]) for k in kept], int)
            if spoil and patch.x == patch.y == 0:  # far beyond the border, one for each class
                strays = [[-1000, -1000, 20, 20, 0]] * len(HARBOUR_CLASSES)
                boxes = np.concatenate([boxes, strays])
                scores = np.append(scores, [0.7] * len(strays))
                numbers = np.append(numbers, range(len(strays)))
            yield sample(path.stem, boxes, scores, numbers)

    assert score(find_difficult=True, spoil=False) == score(find_difficult=False, spoil=False) == 1.0
    spoilt = score(find_difficult=False, spoil=True)
    assert 0.3 < spoilt < 0.8
    assert score(find_difficult=True, spoil=True) == spoilt


def test_whole_images_are_compared_with_quadrilaterals_and_difficulty(tmp_path):
    """One right of two objects; the detection of the difficult one is no mistake."""
    (tmp_path / "a.txt").write_text(
        "gsd:1\n0 0 20 0 20 10 0 10 ship 0\n50 50 70 50 70 60 50 60 ship 0\n80 0 99 0 99 10 80 10 ship 1\n"
    )
    metric = DOTATask1Metric(merge_patches=True, label_folder=str(tmp_path))
    boxes = [[10, 5, 20, 10, 0], [89.5, 5, 19, 10, 0], [30, 80, 20, 10, 0]]
    found = sample("a__100__0___0", boxes, [0.7, 0.9, 0.5], [0, 0, 0])
    assert run(metric, [found], ("ship",))["dota/AP50"] == pytest.approx(6 / 11)


@pytest.mark.parametrize("thr", [0.1, 0.5])
def test_merging_keeps_the_best_of_each_crowd(thr):
    """Each detection that stays overlaps no better one of its class that stays; each that goes overlaps one."""
    rng = np.random.default_rng(0)
    patches, flat = [], []
    for x, y in ((0, 0), (60, 0), (0, 60)):
        boxes = np.concatenate(
            [rng.uniform(0, 100, (60, 2)), rng.uniform(12, 40, (60, 2)), rng.uniform(-1.5, 1.5, (60, 1))], 1
        )
        found = Found(boxes.astype(np.float32), rng.uniform(size=60).astype(np.float32), rng.integers(0, 3, 60))
        patches.append((Patch("image", 100, x, y).name, found))
        moved = found.boxes + np.array([x, y, 0, 0, 0])
        flat += [(score, label, *box) for score, label, box in zip(found.scores, found.labels, moved)]
    merged = merge_patches(patches, thr)["image"]
    again = merge_patches(patches[::-1], thr)["image"]
    np.testing.assert_array_equal(merged.boxes, again.boxes)

    expected = []
    for score, label, *box in sorted(flat, reverse=True):
        rivals = [other for other in expected if other[1] == label]
        overlaps = box_iou_rotated(
            torch.tensor([box], dtype=torch.float64),
            torch.tensor([other[2:] for other in rivals], dtype=torch.float64).reshape(-1, 5),
        )
        if not (overlaps > thr).any():
            expected.append((score, label, *box))
    assert 30 < len(expected) < 175
    np.testing.assert_allclose(np.column_stack([merged.scores, merged.labels, merged.boxes]), expected, atol=1e-5)


def test_the_objects_of_the_data_set_are_used_without_merging():
    ship, near = [10, 10, 20, 8, 0.3], [11, 10, 20, 8, 0.3]
    samples = [
        sample("a", [ship, near], [0.9, 0.8], [0, 0], truth=([ship], [0]), ignored=([], [])),
        sample("b", [ship], [0.95], [0], truth=([], []), ignored=([ship], [0])),
        sample("c", [], [], [], truth=([ship], [0]), ignored=([], [])),
    ]
    # One of two objects, found first: precision 1 up to recall 0.5.
    assert run(DOTATask1Metric(), samples, ("ship", "plane")) == pytest.approx(
        {"dota/mAP": 6 / 11, "dota/AP50": 6 / 11}
    )


@pytest.mark.parametrize("as_tensors", [False, True])
def test_samples_of_a_data_set(scenes, as_tensors):
    """Boxes come as tensors or as mmdet's structures, in the pixels of the file although the image is resized."""
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
    from mmdet.structures.bbox import BaseBoxes
    from mmrotate.datasets.transforms import ConvertBoxType

    from perception.datasets.dota_patches import DotaPatches

    dataset = DotaPatches(
        data_root=str(scenes / "patches"),
        ann_file="annfiles/",
        data_prefix={"img_path": "images/"},
        metainfo=harbours.METAINFO,
        test_mode=True,
        pipeline=[
            {"type": LoadImageFromFile},
            {"type": Resize, "scale": (64, 64), "keep_ratio": True},
            {"type": LoadAnnotations, "with_bbox": True, "box_type": "qbox"},
            {"type": ConvertBoxType, "box_type_mapping": {"gt_bboxes": "rbox"}},
            {"type": PackDetInputs, "meta_keys": ("img_id",)},
        ],
    )
    metric, ignored = DOTATask1Metric(), 0
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        one = dataset[index]["data_samples"]
        assert isinstance(one.gt_instances.bboxes, BaseBoxes)
        if as_tensors:
            for part in (one.gt_instances, one.ignored_instances):
                part.bboxes = part.bboxes.tensor
        everything = InstanceData.cat([one.gt_instances, one.ignored_instances])
        everything.scores = torch.full((len(everything),), 0.5)
        one.pred_instances = everything
        ignored += len(one.ignored_instances)
        metric.process({}, [one.to_dict()])
    assert ignored > 10
    assert metric.evaluate(len(dataset)) == {"dota/mAP": 1.0, "dota/AP50": 1.0}


def test_files_keep_the_scores_and_are_replaced(tmp_path):
    scores = np.array([0.123456789, 0.5, 3e-7, 0.8949], np.float32)
    boxes = np.array([[5000.126, 20, 10, 4, 0], [1, 2, 3, 4, 0.1], [1, 2, 3, 4, 0.2], [1, 2, 3, 4, 0.3]])
    found = Found(boxes, scores, np.array([0, 0, 1, 1]))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Task1_ship.txt").write_text("old")
    path = write_task1(tmp_path / "sub", {"P1": found}, ("ship", "plane", "harbor"))
    assert path == tmp_path / "sub" / "sub.zip"
    lines = [(tmp_path / "sub" / f"Task1_{name}.txt").read_text().splitlines() for name in ("ship", "plane", "harbor")]
    assert [len(some) for some in lines] == [2, 2, 0]
    assert lines[0][0] == "P1 0.12345679 4995.13 18.00 5005.13 18.00 5005.13 22.00 4995.13 22.00"
    assert [np.float32(line.split()[1]) for some in lines for line in some] == scores.tolist()
    assert len(list((tmp_path / "sub").iterdir())) == 4


def test_submission_of_whole_images(tmp_path):
    """Without merging the images' own names are written, after one more suppression."""
    metric = DOTATask1Metric(format_only=True, outfile_prefix=str(tmp_path / "out"), iou_thr=0.5)
    boxes = [[10, 10, 20, 8, 0.0], [10, 11, 20, 8, 0.0], [10, 15, 20, 8, 0.0]]
    assert run(metric, [sample("P7", boxes, [0.9, 0.8, 0.7], [0, 0, 0])], ("ship",)) == {}
    lines = (tmp_path / "out" / "Task1_ship.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["P7", "0.9000"], ["P7", "0.7000"]]


def test_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(UserError, match="format_only of the evaluator needs outfile_prefix"):
        DOTATask1Metric(format_only=True)
    with pytest.raises(UserError, match="merges patches: give label_folder"):
        DOTATask1Metric(merge_patches=True)
    with pytest.raises(UserError, match="none, is not a folder"):
        DOTATask1Metric(merge_patches=True, label_folder=str(tmp_path / "none"))
    with pytest.raises(UserError, match="labels of P1 are missing"):
        DOTATask1Metric(merge_patches=True, label_folder=str(tmp_path)).process(
            {}, [sample("P1__1024__0___0", [], [], [])]
        )
    for options in ({"label_folder": str(tmp_path)}, {"format_only": True, "outfile_prefix": str(tmp_path / "out")}):
        with pytest.raises(UserError, match="merges patches, but 'P1' is not the name of a patch"):
            DOTATask1Metric(merge_patches=True, **options).process({}, [sample("P1", [], [], [])])
    with pytest.raises(UserError, match="got no results: its data set has no images"):
        run(DOTATask1Metric(), [])
    with pytest.raises(UserError, match="has no boxes to evaluate with"):
        DOTATask1Metric().process({}, [sample("P1", [], [], [])])
    (tmp_path / "P1.txt").write_text("0 0 1 0 1 1 0 1 whale 0\n")
    with pytest.raises(UserError, match="class 'whale'; classes of the config: ship"):
        run(
            DOTATask1Metric(merge_patches=True, label_folder=str(tmp_path)),
            [sample("P1__1024__0___0", [], [], [])],
            ("ship",),
        )


def test_corners_of_a_box_start_at_its_upper_left():
    corners = rotated_box_corners(torch.tensor([[10.0, 10, 4, 2, 0]]))
    assert corners[0].tolist() == [[8, 9], [12, 9], [12, 11], [8, 11]]
