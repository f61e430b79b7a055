"""nuScenes and Waymo behind the same interface: readers against what is known, and recipes that train on them."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.datasets.synthetic import driving
from perception.datasets.tracklets.lidar_sot import LidarSotTracklets
from perception.datasets.tracklets.nuscenes import NuScenesTracklets
from perception.datasets.tracklets.tracklet import Tracklet, without_gaps
from perception.datasets.tracklets.waymo import WaymoTracklets
from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.engine.run import build_train_runner
from perception.geometry import boxes3d, se3
from tests.datasets.driving_set import PARAMS

CONFIGS = Path(__file__).parents[3] / "configs" / "adaformer"
DIMS = ((8, 8, 16), (16, 16, 32), (32, 32, 32))
POSE = np.eye(4)
POSE[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
POSE[:3, 3] = [5000.0, -2000.0, 30.0]
BOX = (12.0, 3.0, 0.9, 4.5, 1.9, 1.6, 0.4)  # in the vehicle's frame


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nuscenes") / "set"
    driving.write(folder, PARAMS)
    return folder


@pytest.fixture
def waymo(tmp_path):
    """A vehicle that goes 0.5 m ahead from cloud to cloud, and a sign that nobody follows."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("annos", "lidar"):
            (tmp_path / split / kind).mkdir(parents=True)
        for frame in (0, 1, 2, 10):
            box = torch.tensor(BOX, dtype=torch.float64)
            box[:2] += 0.5 * frame * torch.tensor([box[6].cos(), box[6].sin()])
            local = torch.from_numpy(rng.uniform(-0.5, 0.5, (200, 3))) * box[3:6]
            points = boxes3d.from_box_frame(local, box).numpy().astype(np.float32)
            stored = np.array([*box[:6].tolist(), 0.0, 0.0, float(box[6])], np.float32)
            objects = [{"id": 0, "name": "abc", "label": 1, "box": stored}, {"name": "s", "label": 3, "box": stored}]
            place = f"seq_7_frame_{frame}.pkl"
            write(tmp_path / split / "annos" / place, {"veh_to_global": POSE.ravel(), "objects": objects})
            write(tmp_path / split / "lidar" / place, {"lidars": {"points_xyz": points}})
    return tmp_path


def write(path, content):
    path.write_bytes(pickle.dumps(content))


# ---------------------------------------------------------------------------------------------------------- nuScenes


def read_nuscenes(root, **options):
    return NuScenesTracklets(str(root), **{"version": "v1.0-mini", "split": "mini_train", **options})


def test_nuscenes_boxes_hold_the_points_that_the_tables_count(nuscenes):
    tracklets = read_nuscenes(nuscenes)
    tables = nuscenes / "v1.0-mini"
    rows = json.loads((tables / "sample_annotation.json").read_text())
    samples = {row["token"]: row for row in json.loads((tables / "sample.json").read_text())}
    by_time = {row["timestamp"]: row["token"] for row in samples.values()}
    scene = next(row["scene_token"] for row in samples.values())  # one scene of training, in the order of time
    order = [by_time[time] for time in sorted(by_time) if samples[by_time[time]]["scene_token"] == scene]
    counts = {(row["instance_token"], row["sample_token"]): row["num_lidar_pts"] for row in rows}
    compared = 0
    for tracklet in tracklets.tracklets:
        assert tracklet.frames == tuple(range(tracklet.frames[0], tracklet.frames[0] + len(tracklet)))
        for index, box in enumerate(tracklet.boxes):
            points = tracklets.points(tracklet, index)
            assert points.dtype == torch.float64
            inside = int(boxes3d.points_inside(points, box[None]).sum())
            instance = tracklet.name.split("/")[1]
            expected = counts[instance, order[tracklet.frames[index]]]
            assert 0.95 * expected - 2 <= inside <= 1.3 * expected + 5  # the road beside an object counts too
            compared += expected > 20
    assert compared > 3
    assert {one.category for one in tracklets.tracklets} >= {"car", "pedestrian"}


def test_nuscenes_leaves_out_what_is_first_seen_without_points(nuscenes):
    everything, seen = read_nuscenes(nuscenes), read_nuscenes(nuscenes, min_first_points=5)
    assert 0 < len(seen.tracklets) < len(everything.tracklets)
    rows = json.loads((nuscenes / "v1.0-mini/sample_annotation.json").read_text())
    first = {row["instance_token"]: row["num_lidar_pts"] for row in rows if not row["prev"]}
    names = {one.name for one in everything.tracklets if first[one.name.split("/")[1]] >= 5}
    assert {one.name for one in seen.tracklets} == names
    assert everything.fingerprint() != seen.fingerprint()
    assert everything.fingerprint() == read_nuscenes(nuscenes).fingerprint()


def test_nuscenes_faults_are_one_sentence(nuscenes, tmp_path):
    for options, words in (
        ({"categories": ("tram",)}, "no category 'tram'"),
        ({"split": "training"}, "no split 'training'"),
        ({"version": "v1.0-test"}, "no tables of version v1.0-test"),
        ({"split": "test"}, "is in the split test"),
        ({"min_first_points": 10**6}, "has 1000000 points in its first box"),
    ):
        with pytest.raises(UserError, match=words):
            read_nuscenes(nuscenes, **options)
    copy = tmp_path / "set"
    shutil.copytree(nuscenes, copy)
    next((copy / "samples" / "LIDAR_TOP").iterdir()).unlink()
    with pytest.raises(UserError, match=r"which the tables name, is not there"):
        [read_nuscenes(copy, split=split) for split in ("mini_train", "mini_val")]


# ---------------------------------------------------------------------------------------------------------- Waymo


def test_waymo_boxes_and_clouds_are_in_the_global_frame(waymo):
    tracklets = WaymoTracklets(str(waymo), "train")
    (tracklet,) = tracklets.tracklets
    assert (tracklet.name, tracklet.category, tracklet.frames) == ("7/abc/vehicle", "vehicle", (0, 1, 2, 10))
    expected = boxes3d.transform(torch.tensor([BOX], dtype=torch.float64), torch.from_numpy(POSE))[0]
    torch.testing.assert_close(tracklet.boxes[0], expected, atol=1e-5, rtol=0)
    for index in range(4):
        points = tracklets.points(tracklet, index)
        assert boxes3d.points_inside(points, tracklet.boxes[index : index + 1], 1.001).all()
    again = WaymoTracklets(str(waymo), "train").tracklets[0].boxes  # reading changes nothing
    assert torch.equal(again, tracklet.boxes)


def test_waymo_as_released_turns_the_other_way(waymo):
    (tracklet,) = WaymoTracklets(str(waymo), "train", heading="released").tracklets
    turn = float(se3.heading(torch.from_numpy(POSE)))
    assert float(tracklet.boxes[0, 6]) == pytest.approx(turn - BOX[6], abs=1e-6)


def test_waymo_boxes_without_points_are_left_out(waymo):
    path = waymo / "train" / "annos" / "seq_7_frame_1.pkl"
    content = pickle.loads(path.read_bytes())
    for number, one in enumerate(content["objects"]):
        one["num_points"] = number
    write(path, content)
    assert [one.frames for one in WaymoTracklets(str(waymo)).tracklets] == [(0, 2, 10)]
    assert [one.frames for one in WaymoTracklets(str(waymo), with_empty=True).tracklets] == [(0, 1, 2, 10)]


def test_gaps_cut_a_tracklet(waymo):
    (tracklet,) = WaymoTracklets(str(waymo), "train", max_gap=3).tracklets
    assert (tracklet.name, tracklet.frames) == ("7/abc/vehicle/0", (0, 1, 2))  # what is alone is left out
    whole = Tracklet("a", "Car", "0", (2, 3, 9, 10), torch.arange(28.0).view(4, 7))
    first, second = without_gaps(whole, 2)
    assert (first.frames, second.frames) == ((2, 3), (9, 10))
    assert torch.equal(second.boxes, whole.boxes[2:])
    assert without_gaps(whole, 5) == [whole]


class Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_waymo_faults_are_one_sentence(waymo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    annos, lidar = (waymo / "train" / kind / "seq_7_frame_1.pkl" for kind in ("annos", "lidar"))
    good = {"veh_to_global": POSE.ravel(), "objects": []}
    for content, words in (
        (Harm(), "is refused: it holds pathlib"),
        ([1], "holds a list"),
        ({"objects": []}, "no annotation of Waymo"),
        ({**good, "objects": [{"name": "a", "label": 1, "box": [1, 2, 3]}]}, "heading"),
        ({**good, "veh_to_global": [1, 2]}, "no annotation of Waymo"),
    ):
        write(annos, content)
        with pytest.raises(UserError, match=words):
            WaymoTracklets(str(waymo), "train")
    assert not Path("harm").exists()
    annos.write_bytes(b"\x80\x04cut")
    with pytest.raises(UserError, match="is refused"):
        WaymoTracklets(str(waymo), "train")
    write(annos, good)
    tracklets = WaymoTracklets(str(waymo), "train")
    write(lidar, {"points": []})
    with pytest.raises(UserError, match='no "lidars"'):
        tracklets.cloud("7", 1)
    lidar.unlink()
    with pytest.raises(UserError, match="has no cloud"):
        WaymoTracklets(str(waymo), "train")
    for options, words in (
        ({"split": "test"}, "has no folder annos"),
        ({"split": "val", "categories": ("sign",)}, "no category 'sign'"),
        ({"split": "val", "categories": ("cyclist",)}, "no cyclist is annotated"),
        ({"split": "val", "heading": "left"}, "heading is"),
    ):
        with pytest.raises(UserError, match=words):
            WaymoTracklets(str(waymo), **options)


# ---------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["siamcut_nuscenes", "mocut_nuscenes", "siamcut_waymo", "mocut_waymo"])
def test_recipes_train_and_evaluate(name, nuscenes, waymo, tmp_path):
    config = load_config(str(CONFIGS / f"{name}.py"), work_dir=str(tmp_path / "run"))
    backbone = dict(dims=DIMS, num_samples=8, num_neighbours=4)
    if "segmenter" in config.model:
        config.model.segmenter.backbone.update(backbone)
        config.model.segmenter.decoder = ((32, 32), (32, 16), (16, 16))
        points = dict(points=64)
    else:
        config.model.backbone.update(backbone)
        config.model.network.update(channels=32, vote_channels=32, num_proposals=8)
        points = dict(template_points=64, search_points=64)
    config.model.update(points)
    data = config.train_dataloader
    data.update(batch_size=4, num_workers=0, persistent_workers=False)
    data.dataset.update(cache_dir=str(tmp_path / "cache"), candidates=1, **points)
    for loader, split in ((data, "train"), (config.val_dataloader, "val"), (config.test_dataloader, "val")):
        tracklets = loader.dataset.tracklets
        if "waymo" in name:
            tracklets.update(data_root=str(waymo))
        else:
            tracklets.update(data_root=str(nuscenes), version="v1.0-mini", split=f"mini_{split}")
    config.train_cfg.update(max_epochs=1, val_interval=1)
    config.launcher, config.randomness = "none", dict(seed=0)
    runner = build_train_runner(config)
    runner.train()
    metrics = runner.val_loop.evaluator.dataset_meta, runner.message_hub.get_scalar("val/tracking/success").current()
    assert 0 < metrics[1] <= 100


# ---------------------------------------------------------------------------------------------------------- LiDAR-SOT


@pytest.fixture
def lidar_sot(tmp_path):
    """A vehicle in frames 1 to 4 of five, and a pedestrian that is seen from frame 2 on."""
    rng = np.random.default_rng(0)
    for folder in ("gt_info", "pc/raw_pc", "benchmark/validation/vehicle", "benchmark/validation/pedestrian"):
        (tmp_path / folder).mkdir(parents=True)
    clouds, boxes, identities = {}, np.empty(5, object), np.empty(5, object)
    for frame in range(5):
        car = torch.tensor([*BOX[:6], BOX[6] + 0.1 * frame], dtype=torch.float64)
        walker = torch.tensor([3.0 + frame, -2, 0.9, 0.8, 0.7, 1.8, 1.0], dtype=torch.float64)
        present = [("car", car), ("walker", walker)][: 2 if frame > 1 else 1]
        clouds[str(frame)] = np.concatenate(
            [boxes3d.from_box_frame(torch.from_numpy(rng.uniform(-0.5, 0.5, (60, 3))) * b[3:6], b) for _, b in present]
        ).astype(np.float32)
        boxes[frame] = np.stack([b[[0, 1, 2, 6, 3, 4, 5]].numpy() for _, b in present])
        identities[frame] = [name for name, _ in present]
    np.savez_compressed(tmp_path / "pc/raw_pc/seg.npz", **clouds)
    np.savez_compressed(tmp_path / "gt_info/seg.npz", bboxes=boxes, ids=identities, types=identities)
    for category, name, span, lists in (
        ("vehicle", "car", [1, 4], ("bench_list", "easy")),
        ("pedestrian", "walker", [2, 9], ("bench_list", "hard")),
    ):
        for file in ("bench_list", "easy", "medium", "hard"):
            entry = {"id": name, "type": 1, "segment_name": "seg", "frame_range": span}
            place = tmp_path / "benchmark/validation" / category / f"{file}.json"
            place.write_text(json.dumps([entry] if file in lists else []))
    return tmp_path


def test_lidar_sot_boxes_hold_their_points(lidar_sot):
    tracklets = LidarSotTracklets(str(lidar_sot))
    names = {one.name: one for one in tracklets.tracklets}
    assert {name: one.frames for name, one in names.items()} == {
        "seg/car/vehicle": (1, 2, 3, 4),
        "seg/walker/pedestrian": (2, 3, 4),
    }
    for tracklet in names.values():
        for index in range(len(tracklet)):
            inside = boxes3d.points_inside(
                tracklets.points(tracklet, index).double(), tracklet.boxes[index, None], 1.001
            )
            assert int(inside.sum()) == 60
    assert [one.name for one in LidarSotTracklets(str(lidar_sot), "easy").tracklets] == ["seg/car/vehicle"]
    hard = LidarSotTracklets(str(lidar_sot), "hard")
    assert [one.category for one in hard.tracklets] == ["pedestrian"]
    assert hard.fingerprint() != tracklets.fingerprint()
    assert tracklets.fingerprint() == LidarSotTracklets(str(lidar_sot)).fingerprint()


def test_lidar_sot_as_released(lidar_sot):
    """Lists without the folder of the split, and frames of equally many objects, which make a plain array."""
    (lidar_sot / "benchmark/validation").rename(lidar_sot / "lists")
    (lidar_sot / "lists").rename(lidar_sot / "benchmark2")
    shutil.rmtree(lidar_sot / "benchmark")
    (lidar_sot / "benchmark2").rename(lidar_sot / "benchmark")
    boxes = np.tile(np.array([[12.0, 3, 0.9, 0.4, 4.5, 1.9, 1.6]]), (5, 1, 1))
    np.savez(lidar_sot / "gt_info/seg.npz", bboxes=boxes, ids=np.array([["car"]] * 5))
    (tracklet,) = LidarSotTracklets(str(lidar_sot), categories=("vehicle",)).tracklets
    assert tracklet.boxes[0].tolist() == list(BOX)

    def label(numbers):
        np.savez(lidar_sot / "gt_info/seg.npz", bboxes=np.tile(numbers, (5, 1, 1)), ids=np.array([["car"]] * 5))
        return LidarSotTracklets(str(lidar_sot), categories=("vehicle",))

    assert label([*boxes[0, 0], 0.5]).tracklets[0].boxes[0].tolist() == list(BOX)  # a score follows
    with pytest.raises(UserError, match="a box is not seven numbers or more"):
        label(boxes[0, 0, :6])


def test_lidar_sot_faults_are_one_sentence(lidar_sot):
    with pytest.raises(UserError, match="no cloud of frame 7"):
        LidarSotTracklets(str(lidar_sot)).cloud("seg", 7)

    def refused(words, **options):
        with pytest.raises(UserError, match=words):
            LidarSotTracklets(str(lidar_sot), **options)

    refused("no split 'tough'", split="tough")
    refused("no category 'cyclist'", categories=("cyclist",))
    refused("none of 0 tracklets", split="medium")
    place = lidar_sot / "benchmark/validation/vehicle/easy.json"
    entry = json.loads(place.read_text())[0]
    place.write_text(json.dumps([{**entry, "id": "truck"}]))
    refused("truck has no box in frames 1 to 4 of seg", split="easy")
    place.write_text(json.dumps([{**entry, "segment_name": "other"}]))
    refused("other.npz, whose tracklets .* is not there", split="easy")
    place.write_text("{}x")
    refused("is no list of LiDAR-SOT's tracklets", split="easy")
    np.savez(lidar_sot / "gt_info/seg.npz", bboxes=np.zeros((5, 1, 7)), ids=np.array([[eval]], object))
    refused(r'has no "bboxes" and "ids".*holds builtins.eval')
    np.savez(lidar_sot / "gt_info/seg.npz", bboxes=np.zeros((5, 1, 7)))
    refused('has no "bboxes" and "ids"')
