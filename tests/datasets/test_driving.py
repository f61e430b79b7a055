"""The built-in driving sets: the devkit opens them, and what is written agrees with what was rendered."""

import filecmp
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch
from nuscenes import NuScenes
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box, view_points
from nuscenes.utils.splits import create_splits_scenes
from PIL import Image

from perception.datasets.driving.infos import read_infos
from perception.datasets.synthetic import driving
from perception.datasets.synthetic.driving_bodies import KINDS
from perception.datasets.synthetic.driving_rigs import nuscenes_rig
from perception.datasets.synthetic.driving_view import render
from perception.geometry import boxes3d, cameras
from tests.datasets.driving_set import PARAMS


@pytest.fixture(scope="module")
def devkit(driving_folder):
    return NuScenes("v1.0-mini", str(driving_folder), verbose=False)


@pytest.fixture(scope="module")
def world():
    return next(iter(PARAMS.worlds()))[2]


class TestWorld:
    def test_nothing_collides(self, world):
        for time in np.linspace(0, 1, 9):
            boxes = torch.from_numpy(np.stack([actor.box(time) for actor in world.actors]))
            outlines = shapely.polygons(boxes3d.ground_polygons(boxes).numpy())
            touching = shapely.intersects(outlines[:, None], outlines[None])
            assert touching.sum() == len(outlines)

    def test_solids_fill_their_boxes(self, world):
        """Extents to a millimetre: what an annotator would draw."""
        seen = set()
        for actor in world.actors:
            corners = np.concatenate([solid.corners() for solid in actor.body.solids])
            low, high = corners.min(0), corners.max(0)
            length, width, height = actor.size
            np.testing.assert_allclose(high, [length / 2, width / 2, height], atol=2e-3, err_msg=actor.kind)
            np.testing.assert_allclose(low, [-length / 2, -width / 2, 0], atol=2e-3, err_msg=actor.kind)
            seen.add(actor.kind)
        assert seen == set(KINDS)

    def test_attributes_agree_with_motion(self, world):
        for actor in world.actors:
            moving = actor.body.path.speed > 0
            if actor.attribute.startswith(("vehicle", "pedestrian")):
                assert actor.attribute.endswith("moving") == moving

    def test_a_scene_does_not_depend_on_how_many_there_are(self):
        more = driving.Params(**{**vars(PARAMS), "num_train": 2, "num_val": 2})
        ours = {(split, number): world for split, number, world in PARAMS.worlds()}
        theirs = {(split, number): world for split, number, world in more.worlds()}
        for key, one in ours.items():
            assert one == theirs[key]
        assert theirs["train", 0] != theirs["train", 1]


class TestNuScenes:
    def test_tables_are_complete_and_linked(self, devkit):
        splits = create_splits_scenes()
        assert [scene["name"] for scene in devkit.scene] == [splits["mini_train"][0], splits["mini_val"][0]]
        for scene in devkit.scene:
            token, count = scene["first_sample_token"], 0
            while token:
                sample = devkit.get("sample", token)
                assert set(sample["data"]) == {camera.name for camera in nuscenes_rig(16, 9, 16).cameras} | {
                    "LIDAR_TOP"
                }
                assert len(sample["anns"]) > 20
                last, token, count = token, sample["next"], count + 1
            assert (last, count) == (scene["last_sample_token"], 3)
        for instance in devkit.instance:
            token, count, previous = instance["first_annotation_token"], 0, ""
            while token:
                row = devkit.get("sample_annotation", token)
                assert row["prev"] == previous
                assert row["instance_token"] == instance["token"]
                previous, token, count = token, row["next"], count + 1
            assert (previous, count) == (instance["last_annotation_token"], instance["nbr_annotations"])

    def test_every_class_of_the_benchmark_can_be_scored(self, devkit):
        ranges = config_factory("detection_cvpr_2019").class_range
        for scene in devkit.scene:
            scored = Counter()
            for sample in (s for s in devkit.sample if s["scene_token"] == scene["token"]):
                lidar = devkit.get("sample_data", sample["data"]["LIDAR_TOP"])
                ego = devkit.get("ego_pose", lidar["ego_pose_token"])["translation"]
                for row in (devkit.get("sample_annotation", token) for token in sample["anns"]):
                    name = category_to_detection_name(row["category_name"])
                    distance = np.hypot(*np.subtract(row["translation"], ego)[:2])
                    scored[name] += row["num_lidar_pts"] > 0 and distance < ranges[name]
            assert set(scored) == set(ranges)
            assert min(scored.values()) > 0, scored

    def test_points_of_the_sensor_lie_in_the_boxes(self, devkit):
        total = 0
        for sample in devkit.sample:
            path, boxes, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
            cloud = LidarPointCloud.from_file(path).points
            assert cloud.shape[0] == 4
            assert 30 < cloud[3].max() <= 255
            for box in boxes:
                row = devkit.get("sample_annotation", box.token)
                inside = points_in_box(box, cloud[:3]).sum()
                assert row["num_lidar_pts"] <= inside <= row["num_lidar_pts"] * 1.3 + 40  # and some of the ground
                total += row["num_lidar_pts"]
        assert total > 1000

    def test_velocities_are_those_of_the_paths(self, devkit, world):
        by_size = {(actor.size[1], actor.size[0], actor.size[2]): actor for actor in world.actors}
        first = devkit.get("sample", devkit.scene[0]["first_sample_token"])
        compared = 0
        for token in devkit.get("sample", first["next"])["anns"]:
            row = devkit.get("sample_annotation", token)
            if row["prev"] and row["next"]:
                speed = np.linalg.norm(devkit.box_velocity(token))
                assert speed == pytest.approx(by_size[tuple(row["size"])].body.path.speed, abs=1e-6)
                compared += 1
        assert compared > 15

    def test_pixels_lie_in_the_projected_boxes(self, devkit):
        """Of an object that stands: cameras and boxes belong to different moments."""
        world = next(iter(PARAMS.worlds()))[2]
        sample = devkit.get("sample", devkit.scene[0]["first_sample_token"])
        rig, checked = nuscenes_rig(PARAMS.width, PARAMS.height, PARAMS.columns), 0
        by_size = {(a.size[1], a.size[0], a.size[2]): k for k, a in enumerate(world.actors) if not a.body.path.speed}
        for camera in rig.cameras:
            token = sample["data"][camera.name]
            _, boxes, intrinsics = devkit.get_sample_data(token)
            np.testing.assert_allclose(intrinsics, camera.intrinsics)
            moment = (devkit.get("sample_data", token)["timestamp"] - sample["timestamp"]) / 1e6
            assert -0.05 < moment < 0
            for box in boxes:
                number = by_size.get(tuple(box.wlh))
                if number is None:
                    continue
                alone = _pixels_of(world, number, camera, moment)
                corners = view_points(box.corners(), intrinsics, normalize=True)[:2]
                low, high = corners.min(1), corners.max(1)
                assert (alone >= low - 0.6).all()
                assert (alone <= high + 0.6).all()
                full = (low > 1).all() and (high < (PARAMS.width - 1, PARAMS.height - 1)).all()
                if (
                    full
                    and min(high - low) > 5
                    and world.actors[number].kind in ("car", "van", "truck", "bus", "trailer")
                ):
                    gap = np.maximum(alone.min(0) - low, high - alone.max(0))
                    assert (gap < np.maximum(1.6, 0.2 * (high - low))).all()
                    checked += 1
        assert checked >= 2

    def test_images_are_what_was_rendered(self, devkit):
        sample = devkit.get("sample", devkit.scene[0]["first_sample_token"])
        token = sample["data"]["CAM_FRONT"]
        camera = nuscenes_rig(PARAMS.width, PARAMS.height, PARAMS.columns).cameras[0]
        moment = (devkit.get("sample_data", token)["timestamp"] - sample["timestamp"]) / 1e6
        view = render(next(iter(PARAMS.worlds()))[2], camera, moment, 1)
        image = np.asarray(Image.open(devkit.get_sample_data_path(token)))
        assert image.shape == (54, 96, 3)
        assert np.abs(image.astype(int) - view.image).mean() < 3
        assert (view.visible <= view.alone).all()
        assert view.visible.sum() > 50

    def test_the_map_is_where_the_scene_is(self, devkit):
        for scene, record in zip(devkit.scene, devkit.map):
            sample = devkit.get("sample", scene["first_sample_token"])
            pose = devkit.get("ego_pose", devkit.get("sample_data", sample["data"]["LIDAR_TOP"])["ego_pose_token"])
            x, y = pose["translation"][:2]
            mask = np.asarray(Image.open(record["mask"].img_file))
            assert mask[mask.shape[0] - int(10 * y), int(10 * x)] == 255
            assert 0.05 < (mask > 0).mean() < 0.5

    def test_same_parameters_same_bytes(self, driving_folder, tmp_path):
        again = tmp_path / "again"
        driving.write(again, PARAMS)
        names = [str(path.relative_to(again)) for path in again.rglob("*") if path.is_file()]
        assert len(names) == 13 + 4 + 1 + 2 + 6 * 7  # tables, infos, record, maps, sensors
        _, different, missing = filecmp.cmpfiles(driving_folder, again, names, shallow=False)
        assert not different
        assert not missing

    def test_infos_have_the_names_that_recipes_ask_for(self, driving_folder):
        for split in ("train", "val"):
            one, other = (driving_folder / f"infos_{name}.msgpack" for name in (split, f"mini_{split}"))
            assert one.read_bytes() == other.read_bytes()
            assert (read_infos(one).version, read_infos(one).split) == ("v1.0-mini", f"mini_{split}")

    def test_many_scenes_are_a_trainval(self):
        from perception.datasets.synthetic.nuscenes_writer import split_names, version_of

        assert version_of(driving.Params(num_train=8, num_val=2)) == "v1.0-mini"
        many = driving.Params(num_train=9)
        assert version_of(many) == "v1.0-trainval"
        assert split_names(many) == {"train": "train", "val": "val"}


@pytest.mark.slow
class TestKitti:
    @pytest.fixture(scope="class")
    def root(self, tmp_path_factory):
        params = driving.Params(
            **{**vars(PARAMS), "layout": "kitti-tracking", "columns": 900, "frames": 3, "width": 207, "crowd": 8}
        )
        out = tmp_path_factory.mktemp("kitti") / "set"
        driving.write(out, params)
        return out / "training"

    def test_labels_hold_points_and_lie_in_the_image(self, root):
        kinds, hit = Counter(), []
        for sequence in ("0000", "0017"):
            calib = _calibration(root / f"calib/{sequence}.txt")
            for frame in range(3):
                rows = [line.split() for line in (root / f"label_02/{sequence}.txt").read_text().splitlines()]
                rows = [row for row in rows if row[0] == str(frame)]
                labels = torch.tensor([[float(x) for x in row[10:17]] for row in rows], dtype=torch.float64)
                boxes = boxes3d.from_kitti(labels, torch.linalg.inv(calib.rect_from_velodyne))
                cloud = torch.from_numpy(
                    np.fromfile(root / f"velodyne/{sequence}/{frame:06d}.bin", "<f4").reshape(-1, 4)
                )
                assert cloud[:, 3].max() <= 1
                inside = boxes3d.points_inside(cloud[:, :3].double(), boxes).sum(1)
                near = boxes[:, :2].norm(dim=1) < 30
                hit += (inside[near & (torch.tensor([row[4] == "0" for row in rows]))] > 0).tolist()
                matrix = cameras.image_matrix(calib.projection, calib.rect_from_velodyne)
                seen = cameras.project(boxes[:, :3], matrix)
                for row, pixel, valid in zip(rows, seen.pixels, seen.valid):
                    kinds[row[2]] += 1
                    left, top, right, bottom = map(float, row[6:10])
                    if row[3] == "0":
                        assert valid
                        assert left < pixel[0] < right
                        assert top < pixel[1] < bottom
        assert np.mean(hit) > 0.9
        assert kinds["Car"] > 4
        assert {"Pedestrian", "Van"} <= set(kinds)

    def test_rectification_counts(self, root):
        """Boxes that were read without R_rect hold fewer points: it is not the identity."""
        calib = _calibration(root / "calib/0000.txt")
        assert not torch.allclose(calib.rectify, torch.eye(4, dtype=torch.float64), atol=1e-3)
        rotation = calib.rect_from_velodyne[:3, :3]
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_rig_folder(tmp_path):
    params = driving.Params(**{**vars(PARAMS), "layout": "rig", "frames": 2, "width": 32})
    driving.write(tmp_path / "rig", params)
    rig = json.loads((tmp_path / "rig/rig.json").read_text())["cameras"]
    poses = json.loads((tmp_path / "rig/poses.json").read_text())["frames"]
    assert sorted(poses) == sorted(path.name for path in (tmp_path / "rig/frames").iterdir())
    assert len(poses) == 4
    for name, camera in rig.items():
        pose = np.array(camera["ego_from_camera"])
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        with Image.open(tmp_path / f"rig/frames/train_000_0000/{name}.jpg") as image:
            assert image.size == (camera["width"], camera["height"]) == (32, 18)
    one, two = (np.array(poses[f"train_000_000{k}"]["global_from_ego"]) for k in range(2))
    speed = next(iter(params.worlds()))[2].ego.speed
    assert np.linalg.norm(two[:3, 3] - one[:3, 3]) == pytest.approx(speed / 2, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_train": 0},
        {"frames": -1},
        {"frames": 1},
        {"width": 8},
        {"seed": -1},
        {"layout": "waymo"},
        {"rate": -1},
        {"num_train": 701},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        driving.Params(**wrong)
    assert driving.Params(frames=3, rate=30).times.tolist() == [0, 1 / 30, 2 / 30]
    with pytest.raises(ValueError, match="num_val 5"):
        driving.Params(layout="kitti-tracking", num_val=5)


def test_command_writes_it(run_tool, tmp_path):
    options = ("--num-train", 1, "--num-val", 1, "--frames", 2, "--width", 32, "--columns", 30, "--crowd", 1)
    done = run_tool("make_demo_data", "driving", "--out", tmp_path / "set", "--layout", "kitti-tracking", *options)
    assert done.code == 0, done.err
    assert "train: 1 scenes and 2 frames" in done.out


def _pixels_of(world, number, camera, time):
    """Centres of the pixels (N, 2) that an actor would cover alone."""
    from perception.datasets.synthetic.driving_view import pose_of_ego
    from perception.datasets.synthetic.raycasting import Scene

    scene = Scene(world.actors[number].body.placed(time))
    pose = pose_of_ego(world, time) @ camera.ego_from_camera
    rays = camera.rays(pose, 1)
    met = np.flatnonzero(scene.cast(*rays).solid >= 0)
    return np.stack([met % camera.width, met // camera.width], 1) + 0.5


def _calibration(path):
    values = {}
    for line in path.read_text().splitlines():
        key, *numbers = line.split()
        values[key.rstrip(":")] = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
    rectify, velodyne = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    rectify[:3, :3] = values["R_rect"].view(3, 3)
    velodyne[:3] = values["Tr_velo_cam"].view(3, 4)
    return SimpleNamespace(projection=values["P2"].view(3, 4), rectify=rectify, rect_from_velodyne=rectify @ velodyne)
