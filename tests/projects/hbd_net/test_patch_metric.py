"""What becomes of detections in patches: merging into whole images, and precision by length."""

import math

import numpy as np
import pytest
import torch

from perception.datasets.dota import Labels, format_labels, read_labels
from perception.engine.errors import UserError
from perception.evaluation.length_ap import LENGTH_BINS, evaluate_by_length
from perception.evaluation.rotated_ap import Found, Truth
from perception.geometry.pyramid import pyramid
from perception.geometry.rotated_boxes import box_corners
from perception.ops.box_iou_rotated import box_iou_rotated
from projects.hbd_net.metric import PyramidLengthMetric, merge_pyramids
from tests.projects.hbd_net.test_patches import corners_of, cut, write_image


def visible(box, level, window):
    """What a detector finds that sees a window: the part of an upright bar, better the more of it there is."""
    corners = box_corners(box * torch.tensor([1, 1, 1, 1, 0]) / level.factor)[0]
    low = corners.amin(0).round().maximum(window[:2])
    high = corners.amax(0).round().minimum(window[2:])
    if not (high > low).all():
        return torch.zeros(0, 6)
    centre, size = (low + high) / 2 - window[:2], high - low
    score = 0.5 + 0.4 * (size[0] / (box[0, 2] / level.factor))
    return torch.cat([centre, size, torch.zeros(1), score[None]])[None]


def patch_results(box, image, width, height):
    """Of all patches of all levels, as the metric notes them."""
    results = []
    for level in pyramid(width, height):
        for window in torch.from_numpy(level.windows()):
            rows = visible(box, level, window).numpy()
            name = f"{image}__1024__{window[0]}___{window[1]}"
            results.append((name, Found(rows[:, :5], rows[:, 5], np.zeros(len(rows), np.int64)), level.factor))
    return results


def test_long_bridge_of_3000_pixels_end_to_end():
    """A bar of 1500 x 30: in pieces on the native level alone, whole with the pyramid."""
    bar = torch.tensor([[1500.0, 1500, 1500, 30, 0]])
    truth = Truth(corners_of(bar[0].tolist()), np.zeros(1, np.int64), np.zeros(1, bool))
    results = patch_results(bar, "big__scene", 3000, 3000)
    (whole,) = merge_pyramids(results, 1).values()
    (native,) = merge_pyramids([one for one in results if one[2] == 1], 1).values()
    assert box_iou_rotated(torch.from_numpy(whole.boxes[:1]), bar.double()) > 0.9
    assert len(native.scores) > 1
    assert evaluate_by_length([whole], [truth], 1)[3].average_precision[0.9] == 1
    assert evaluate_by_length([native], [truth], 1)[3].average_precision[0.75] == 0
    assert merge_pyramids(results[::-1], 1)["big__scene"].boxes.tolist() == whole.boxes.tolist()


def test_classes_are_merged_apart():
    box = np.array([[50.0, 50, 40, 10, 0.1]])
    one = [("a__128__0___0", Found(np.repeat(box, 2, 0), np.array([0.9, 0.8]), np.array([0, 1])), 1)]
    other = [("a__128__0___0", Found(box / [2, 2, 2, 2, 1], np.array([0.7]), np.array([1])), 2)]
    merged = merge_pyramids(one + other, 2)["a"]
    assert merged.labels.tolist() == [0, 1]
    assert merged.scores.tolist() == [0.9, 0.8]
    alone = merge_pyramids(other, 2)["a"]
    np.testing.assert_allclose(alone.boxes, box)


def metric(folder, **settings):
    built = PyramidLengthMetric(str(folder), **settings)
    built.dataset_meta = {"classes": ("bridge",)}
    return built


def as_sample(name, found, factor):
    return {
        "img_id": name,
        "factor": factor,
        "pred_instances": {
            "bboxes": torch.from_numpy(found.boxes),
            "scores": torch.from_numpy(found.scores),
            "labels": torch.from_numpy(found.labels),
        },
    }


def test_metric_measures_whole_images_by_length(tmp_path):
    bar, low = [1500.0, 1500, 1500, 30, 0.0], [200.0, 150, 40, 12, 0.0]
    labels = Labels(corners_of(bar, low, [10.0, 10, 30, 1, 0]), ("bridge",) * 3, (1, 0, 0))
    (tmp_path / "big__scene.txt").write_text(format_labels(labels))
    native, everything = metric(tmp_path), metric(tmp_path, outfile_prefix=str(tmp_path / "task1"))
    results = patch_results(torch.tensor([bar]), "big__scene", 3000, 3000)
    results += patch_results(torch.tensor([low]), "big__scene", 3000, 3000)[:1]
    for one in results:
        everything.process({}, [as_sample(*one)])
        if one[2] == 1:
            native.process({}, [as_sample(*one)])
    whole, pieces = (one.compute_metrics(one.results) for one in (everything, native))
    assert whole["AP50_800_20000"] == whole["AP50_0_50"] == 1
    assert whole["mAP_800_20000"] > 0.85
    assert pieces["AP75_800_20000"] == 0
    assert pieces["AP50_0_50"] == 1
    assert whole["AP50_50_200"] == 0  # there are none
    assert whole["AP50"] == 1
    assert {f"mAP_{low:g}_{high:g}" for low, high in LENGTH_BINS} <= set(whole)
    lines = (tmp_path / "task1" / "Task1_bridge.txt").read_text().splitlines()
    assert lines[0].split()[0] == "big__scene"
    assert (tmp_path / "task1" / "task1.zip").is_file()


def test_difficult_objects_are_none_and_equal_overlaps_as_wished(tmp_path):
    """What finds an object that is left out is wrong, as released; two boxes overlap by exactly a half."""
    easy, hard = [200.0, 150, 100, 20, 0.0], [600.0, 150, 100, 20, 0.0]
    labels = Labels(corners_of(easy, hard), ("bridge",) * 2, (0, 101))
    (tmp_path / "scene.txt").write_text(format_labels(labels))
    boxes = np.array([hard, easy, [200.0, 150, 50, 20, 0]])
    sample = as_sample("scene__1024__0___0", Found(boxes, np.array([0.9, 0.8, 0.85]), np.zeros(3, int)), 1)
    scores = {}
    for name, settings in (
        ("plain", {}),
        ("all", {"diff_thr": 101}),
        ("both stay", {"within_level": 0.5}),
        ("released", {"within_level": 0.5, "inclusive": True}),
    ):
        evaluator = metric(tmp_path, **settings)
        evaluator.process({}, [sample])
        scores[name] = evaluator.compute_metrics(evaluator.results)
    assert scores["plain"]["AP50"] == pytest.approx(1 / 2)
    assert scores["all"]["AP50"] == 1
    assert scores["both stay"]["AP75"] == pytest.approx(1 / 3)
    assert scores["released"]["AP75"] == 0


def test_metric_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="label_folder"):
        metric(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images"):
        metric(tmp_path).compute_metrics([])
    with pytest.raises(UserError, match="labels of x are missing"):
        metric(tmp_path).process({}, [as_sample(*patch_results(torch.ones(1, 5), "x", 300, 300)[0])])
    with pytest.raises(UserError, match="'whole'"):
        metric(tmp_path).process({}, [{**as_sample("whole", Found(*map(np.zeros, ((0, 5), 0, 0))), 1)}])


def test_tilted_bridge_over_many_windows(tmp_path):
    """1400 x 40 pixels at 30 degrees: whole in the labels of each window that holds enough, and marked as cut there."""
    bridge = [1500.0, 1200, 1400, 40, math.pi / 6]
    write_image(tmp_path / "scene", "tilted", 2600, 2100, bridge)
    cut(tmp_path / "scene", tmp_path / "out", size=1024, gap=200, levels="all", context_threshold=300)
    counts = {}
    for level, factor in (("native", 1), ("down2", 2), ("down4", 4)):
        for path in (tmp_path / "out" / level / "annfiles").iterdir():
            x, y = (int(value) for value in path.stem.partition("__1024__")[2].split("___"))
            for quad, difficulty in zip(*[getattr(read_labels(path), key) for key in ("corners", "difficulty")]):
                assert np.abs((quad + np.array([x, y])) * factor - corners_of(bridge)[0]).max() < 1e-2
                counts.setdefault(level, []).append(difficulty)
    assert set(counts["native"]) == {2}
    assert 0 in counts["down2"]
    assert counts["down4"] == [0]
    truth = Truth(corners_of(bridge), np.zeros(1, np.int64), np.zeros(1, bool))
    results = []
    for level in pyramid(2600, 2100)[1:]:  # a detector that finds it where it is whole
        for x1, y1, x2, y2 in level.windows().tolist():
            corners = corners_of(bridge)[0] / level.factor - (x1, y1)
            if corners.min() >= 0 and (corners <= (x2 - x1, y2 - y1)).all():
                box = np.array([[*corners.mean(0), 1400 / level.factor, 40 / level.factor, math.pi / 6]])
                found = Found(box, np.array([0.9]), np.zeros(1, np.int64))
                results.append((f"tilted__1024__{x1}___{y1}", found, level.factor))
    (merged,) = merge_pyramids(results, 1).values()
    assert len(merged.scores) == 1
    assert evaluate_by_length([merged], [truth], 1)[3].mean == 1
