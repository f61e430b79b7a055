"""nuScenes' benchmark through the metric: what is right scores 1, and files say what they mean."""

import json
import math
import re
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionMetrics

from perception.datasets.driving.infos import CLASSES
from perception.datasets.driving.rigs import NuScenesRigs
from perception.engine.errors import UserError
from perception.evaluation.nuscenes_detection import NuScenesDetectionMetric, evaluate
from perception.evaluation.nuscenes_results import RANGES, Detections, result_rows, usual_attribute
from perception.geometry import boxes3d, se3
from tests.conftest import REPOSITORY

RECORDED = torch.load(REPOSITORY / "tests/data/reference/bevformer_v2/data_geometry.pt", weights_only=True)


def truths(folder):
    """Data samples whose predictions are what is annotated."""
    data_set = NuScenesRigs(str(folder), "infos_mini_val.msgpack", test_mode=True)
    samples = []
    for number in range(len(data_set)):
        frame = data_set.frame(number)
        objects = frame.objects
        kept = [k for k, name in enumerate(objects.names) if name in CLASSES and objects.lidar_points[k] > 0]
        found = dict(
            bboxes_3d=torch.tensor(objects.boxes, dtype=torch.float64)[kept],
            scores=torch.linspace(1, 0.5, len(kept)),
            labels=torch.tensor([CLASSES.index(objects.names[k]) for k in kept]),
            attributes=[objects.attributes[k] for k in kept],
        )
        poses = {name: np.array(getattr(frame, name)) for name in ("ego_from_lidar", "global_from_ego")}
        samples.append(dict(token=frame.token, pred_instances=found, **poses))
    return data_set.metainfo, samples


def score(folder, meta, samples, **options):
    metric = NuScenesDetectionMetric(str(folder), **options)
    metric.dataset_meta = meta
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_what_is_annotated_scores_1(driving_folder, tmp_path):
    meta, samples = truths(driving_folder)
    numbers = score(driving_folder, meta, samples, outfile_prefix=str(tmp_path / "out"))
    assert numbers["nuscenes/mAP"] == pytest.approx(1)
    assert numbers["nuscenes/NDS"] == pytest.approx(1, abs=1e-3)  # the LiDAR is tilted, and boxes stand upright in it
    assert numbers["nuscenes/mAAE"] == 0
    assert numbers["nuscenes/mATE"] < 1e-4
    assert numbers["nuscenes/AP_traffic_cone"] == pytest.approx(1)
    written = tmp_path / "out/results_nusc.json"
    again = evaluate(written, driving_folder, "v1.0-mini", "mini_val")
    assert {f"nuscenes/{name}": value for name, value in again.items()} == numbers


def test_errors_show_where_they_belong(driving_folder):
    meta, samples = truths(driving_folder)
    for sample in samples:
        found = sample["pred_instances"]
        found["bboxes_3d"][:, :2] += torch.tensor([0.36, 0.48])
        found["bboxes_3d"][:, 6] += 0.1
        found["bboxes_3d"][:, 7] += 0.5
        del found["attributes"]
    numbers = score(driving_folder, meta, samples)
    assert numbers["nuscenes/mATE"] == pytest.approx(0.6, abs=0.02)
    assert numbers["nuscenes/mAOE"] == pytest.approx(0.1, abs=0.02)
    assert numbers["nuscenes/mAVE"] == pytest.approx(0.5, abs=0.05)
    assert 0 <= numbers["nuscenes/mAAE"] < 0.5
    assert 0.6 < numbers["nuscenes/mAP"] < 1  # of four thresholds the first, half a metre, is missed


def test_published_scores_agree_with_each_other():
    settings = config_factory("detection_cvpr_2019")
    row = DetectionMetrics(settings)
    errors = dict(
        trans_err=0.6185, scale_err=0.2815, orient_err=0.3660, vel_err=0.3157, attr_err=0.1902
    )  # t8, 24 epochs
    for name in settings.class_names:
        for distance in settings.dist_ths:
            row.add_label_ap(name, distance, 0.46)
        for error, value in errors.items():
            row.add_label_tp(name, error, value)
    assert row.nd_score == pytest.approx(0.5528, abs=1e-4)


def test_boxes_in_the_world_are_recorded_ones():
    info, recorded = RECORDED["dataset"]["info_cur"], RECORDED["to_nuscenes"]
    poses = [
        se3.from_quaternion(*(torch.tensor(info[f"{name}_{part}"]).double() for part in ("rotation", "translation")))
        for name in ("lidar2ego", "ego2global")
    ]
    boxes = boxes3d.legacy_sizes_and_yaw(RECORDED["inputs"]["gt_gravity"].double())
    scores = torch.linspace(1, 0.5, 6)
    rows = result_rows("t", Detections(boxes, scores, ["car"] * 6, *poses))
    kept = recorded["ego_centre"][:, :2].norm(dim=1) <= 50
    assert len(rows) == int(kept.sum())
    np.testing.assert_allclose([row["translation"] for row in rows], recorded["global_centre"][kept], atol=5e-4)
    np.testing.assert_allclose([row["velocity"] for row in rows], recorded["global_velocity"][kept, :2], atol=1e-5)
    sizes = RECORDED["inputs"]["gt_gravity"][kept, 3:6]  # w, l, h
    np.testing.assert_allclose([row["size"] for row in rows], sizes, atol=1e-6)
    for row, theta in zip(rows, recorded["theta_lidar"][kept].double()):
        expected = poses[1][:3, :3] @ poses[0][:3, :3] @ se3.rotation_about_z(theta)
        found = se3.quaternion_to_matrix(torch.tensor(row["rotation"], dtype=torch.float64))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_box_on_the_road_is_written_by_its_middle():
    """Bottom at z = 0 and 4 m high: the file says 2."""
    legacy = torch.tensor([[0.0, 10, 0, 2, 5, 4, 0.3, 0, 0]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    row = result_rows("t", Detections(boxes3d.from_legacy(legacy), torch.ones(1), ["bus"], eye, eye))[0]
    assert row["translation"] == pytest.approx([0, 10, 2])
    assert row["size"] == pytest.approx([2, 5, 4])
    assert row["attribute_name"] == "vehicle.stopped"


def test_frames_are_not_mixed_up():
    """A car 10 m ahead of a vehicle that stands far away, turned by 120 degrees."""
    quarter = se3.rotation_about_z(torch.tensor(-math.pi / 2, dtype=torch.float64))
    ego_from_lidar = se3.compose(quarter, torch.tensor([0.94, 0, 1.84], dtype=torch.float64))
    turn = torch.tensor(math.radians(120), dtype=torch.float64)
    global_from_ego = se3.compose(se3.rotation_about_z(turn), torch.tensor([1000.0, 2000, 0], dtype=torch.float64))
    car = torch.tensor([[0.0, 10, -1, 4, 2, 1.6, math.pi / 2, 0, 5]], dtype=torch.float64)  # drives away, ahead
    row = result_rows("t", Detections(car, torch.ones(1), ["car"], ego_from_lidar, global_from_ego))[0]
    ahead = [math.cos(turn), math.sin(turn)]
    np.testing.assert_allclose(row["translation"], [1000 + 10.94 * ahead[0], 2000 + 10.94 * ahead[1], 0.84])
    np.testing.assert_allclose(row["velocity"], [5 * ahead[0], 5 * ahead[1]], atol=1e-12)
    np.testing.assert_allclose(row["rotation"], [math.cos(turn / 2), 0, 0, math.sin(turn / 2)], atol=1e-12)


def test_ranges_are_those_of_the_benchmark():
    assert config_factory("detection_cvpr_2019").class_range == RANGES
    eye = torch.eye(4)
    boxes = torch.zeros(600, 9)
    boxes[:, 3:6] = 1
    boxes[1, 0] = 31.0
    rows = result_rows("t", Detections(boxes, torch.arange(600.0), ["barrier"] * 600, eye, eye))
    assert len(rows) == 500
    assert rows[0]["detection_score"] == 599
    far = result_rows("t", Detections(boxes[:2], torch.ones(2), ["barrier", "barrier"], eye, eye))
    assert len(far) == 1


def test_unknown_velocities_are_valid_json():
    eye = torch.eye(4)
    box = torch.tensor([[1.0, 2, 0, 1, 1, 1, 0, math.nan, math.nan]])
    row = result_rows("t", Detections(box, torch.ones(1), ["car"], eye, eye))[0]
    assert json.loads(json.dumps(row, allow_nan=False))["velocity"] == [0, 0]


def test_attributes_follow_the_speed():
    for name in CLASSES:
        for speed in (0.0, 0.19, 0.21, 9.0):
            attribute = usual_attribute(name, speed)
            if name in ("barrier", "traffic_cone"):
                assert attribute == ""
            else:
                moving = {"pedestrian": "pedestrian.moving"} | dict.fromkeys(
                    ("bicycle", "motorcycle"), "cycle.with_rider"
                )
                assert (attribute == moving.get(name, "vehicle.moving")) == (speed > 0.2)


def test_what_does_not_fit_is_said(driving_folder, tmp_path):
    meta, samples = truths(driving_folder)
    with pytest.raises(UserError, match="cannot be scored on mini_val"):
        score(driving_folder, meta, samples[:-1])
    with pytest.raises(UserError, match="format_only of the evaluator needs"):
        NuScenesDetectionMetric(str(driving_folder), format_only=True)
    assert score(driving_folder, meta, samples, format_only=True, outfile_prefix=str(tmp_path / "o")) == {}
    assert len(json.loads((tmp_path / "o/results_nusc.json").read_text())["results"]) == 3
    shutil.copytree(driving_folder / "v1.0-mini", tmp_path / "bare/v1.0-mini")
    with pytest.raises(UserError, match="not complete"):
        score(tmp_path / "bare", meta, samples)


def test_the_same_boxes_for_every_frame(driving_folder, monkeypatch, capsys):
    """The baseline that a trained model is compared with: on its own frames it finds what stands still."""
    arguments = [str(driving_folder), "--train", "infos_mini_val.msgpack", "--val", "infos_mini_val.msgpack"]
    monkeypatch.setattr(sys, "argv", ["driving_baseline.py", *arguments])
    runpy.run_path(str(REPOSITORY / "benchmarks" / "driving_baseline.py"), run_name="__main__")
    printed = re.search(r"mAP (\d\.\d+)  NDS (\d\.\d+)", capsys.readouterr().out)
    assert 0 < float(printed[1]) < 1
    assert float(printed[2]) < 1
