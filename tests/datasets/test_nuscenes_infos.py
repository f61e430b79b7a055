"""Info files against the devkit's own answers, and what is wrong with a data set in one sentence."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from nuscenes.utils.geometry_utils import view_points

from perception.datasets.driving.infos import CAMERAS, CLASSES, box_array, decode_frame, read_infos, write_infos
from perception.datasets.driving.nuscenes_tables import frames_of, open_tables
from perception.engine.errors import UserError
from perception.geometry import boxes3d, cameras, se3
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def devkit(driving_folder):
    return open_tables(driving_folder, "v1.0-mini")


@pytest.fixture(scope="module")
def frames(driving_folder):
    return [decode_frame(raw) for raw in read_infos(driving_folder / "infos_mini_train.msgpack").frames]


def test_frames_are_the_splits_in_order(devkit, frames):
    names = [scene["name"] for scene in devkit.scene]
    assert [frame.scene for frame in frames] == [names[0]] * 3
    stamps = [frame.timestamp for frame in frames]
    assert stamps == sorted(stamps)
    assert np.diff(stamps).tolist() == [500_000] * 2
    assert set(frames[0].cameras) == set(CAMERAS)


def test_boxes_are_the_devkits_in_the_lidars_frame(devkit, frames):
    for frame in frames:
        sample = devkit.get("sample", frame.token)
        _, theirs, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
        ours = torch.from_numpy(box_array(frame.objects))
        assert len(ours) == len(theirs) > 20
        for box, other, corners in zip(ours, theirs, boxes3d.corners(ours)):
            np.testing.assert_allclose(box[:3], other.center, atol=1e-6)
            np.testing.assert_allclose(box[3:6], other.wlh[[1, 0, 2]])
            # The LiDAR is tilted by a degree or so, and boxes stand upright in its frame.
            np.testing.assert_allclose(corners, other.corners().T, atol=0.3)
        global_from_ego, ego_from_lidar = (
            torch.tensor(pose, dtype=torch.float64) for pose in (frame.global_from_ego, frame.ego_from_lidar)
        )
        lidar_from_global = se3.invert(global_from_ego @ ego_from_lidar)
        velocities = np.stack([devkit.box_velocity(box.token) for box in theirs])
        expected = velocities @ lidar_from_global[:3, :3].numpy().T
        np.testing.assert_allclose(ours[:, 7:9], expected[:, :2], atol=1e-6)


def test_a_point_lands_on_its_pixel_through_both_poses(devkit, frames):
    """The image was taken earlier, from another place: only both of the vehicle's poses lead to the devkit's pixel."""
    for frame in frames:
        sample, boxes = devkit.get("sample", frame.token), torch.from_numpy(box_array(frame.objects))
        index = {token: k for k, token in enumerate(sample["anns"])}
        compared = 0
        for name, camera in frame.cameras.items():
            _, seen, intrinsics = devkit.get_sample_data(sample["data"][name])
            np.testing.assert_allclose(camera.intrinsics, intrinsics)
            pose = se3.invert(torch.tensor(camera.lidar_from_camera, dtype=torch.float64))
            matrix = cameras.image_matrix(torch.tensor(camera.intrinsics, dtype=torch.float64), pose)
            for box in seen:
                pixel = cameras.project(boxes[index[box.token], :3][None], matrix).pixels[0]
                np.testing.assert_allclose(pixel, view_points(box.center[:, None], intrinsics, True)[:2, 0], atol=1e-4)
                compared += 1
        assert compared > 15


def test_targets_of_the_cameras(devkit, frames):
    total = 0
    for frame in frames:
        boxes = torch.from_numpy(box_array(frame.objects))
        for camera in frame.cameras.values():
            lidar_from_camera = torch.tensor(camera.lidar_from_camera, dtype=torch.float64)
            for target in camera.objects:
                total += 1
                centre = se3.transform_points(
                    lidar_from_camera, torch.tensor([target.translation], dtype=torch.float64)
                )[0]
                nearest = int((boxes[:, :3] - centre).norm(dim=1).argmin())
                assert (boxes[nearest, :3] - centre).norm() < 1e-6
                assert frame.objects.names[nearest] == target.name in CLASSES
                assert frame.objects.lidar_points[nearest] >= 3
                assert target.size == pytest.approx(boxes[nearest, [4, 3, 5]].tolist())
                assert target.speed == pytest.approx(float(boxes[nearest, 7:9].norm()), rel=1e-3)
                number = {"moving": 0, "with_rider": 0, "parked": 1, "standing": 1, "without_rider": 1, "stopped": 2}
                word = frame.objects.attributes[nearest].rpartition(".")[2]
                assert target.attribute == number.get(word, 3)
                # The 2D box is that of the corners, cut at the borders.
                rotation = se3.quaternion_to_matrix(torch.tensor(target.rotation, dtype=torch.float64))
                own = torch.tensor([[0, 0, 0, target.size[1], target.size[0], target.size[2], 0]], dtype=torch.float64)
                corners = boxes3d.corners(own)[0] @ rotation.T + torch.tensor(target.translation, dtype=torch.float64)
                pixels = corners[:, :2] / corners[:, 2:] * camera.intrinsics[0][0]
                pixels += torch.tensor([camera.intrinsics[0][2], camera.intrinsics[1][2]], dtype=torch.float64)
                limits = torch.tensor([camera.width, camera.height], dtype=torch.float64)
                expected = torch.cat([pixels.amin(0), pixels.amax(0)]).clamp(torch.zeros(4).double(), limits.repeat(2))
                np.testing.assert_allclose(target.box, expected, atol=1e-6)
    assert total > 30


def test_unknown_velocities_stay_unknown(devkit, tmp_path, driving_folder):
    """An object that is annotated once has no velocity: NaN in the file, not 0."""
    copy = _copy(driving_folder, tmp_path)
    rows = json.loads((copy / "v1.0-mini/sample_annotation.json").read_text())
    lonely = next(row for row in rows if row["prev"] == "" and row["next"])
    follower = next(row for row in rows if row["token"] == lonely["next"])
    lonely["next"], follower["prev"] = "", ""
    (copy / "v1.0-mini/sample_annotation.json").write_text(json.dumps(rows))
    frame = frames_of(open_tables(copy, "v1.0-mini"), "mini_train")[0]
    unknown = np.isnan(box_array(frame.objects)[:, 7:]).all(1)
    assert unknown.sum() == 1
    write_infos(tmp_path / "infos.msgpack", "v1.0-mini", "mini_train", [frame])
    again = decode_frame(read_infos(tmp_path / "infos.msgpack").frames[0])
    np.testing.assert_array_equal(box_array(again.objects), box_array(frame.objects))


def _copy(folder, tmp_path):
    """The same set with tables of its own."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(folder / "v1.0-mini", copy / "v1.0-mini")
    for name in ("samples", "maps"):
        (copy / name).symlink_to(folder / name)
    return copy


def test_the_tool(run_tool, driving_folder, tmp_path):
    arguments = ("dataset_converters/nuscenes", driving_folder, "--version", "v1.0-mini", "--out", tmp_path / "out")
    done = run_tool(*arguments)
    assert done.code == 0, done.err
    assert "infos_mini_val.msgpack: 3 frames of 1 scenes" in done.out
    assert len(read_infos(tmp_path / "out/infos_mini_train.msgpack").frames) == 3
    again = run_tool(*arguments)
    assert (again.code, "--overwrite" in again.err) == (1, True)
    assert run_tool(*arguments, "--overwrite").code == 0


@pytest.mark.slow
def test_the_tool_runs_as_a_program(driving_folder, tmp_path):
    """Its file is called like the devkit's package, which it must find nevertheless."""
    command = [sys.executable, "tools/dataset_converters/nuscenes.py", driving_folder, "--version", "v1.0-mini"]
    done = subprocess.run([*command, "--out", tmp_path], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _remove_table(root):
    (root / "v1.0-mini/ego_pose.json").unlink()


def _truncate_table(root):
    path = root / "v1.0-mini/sample_data.json"
    path.write_text(path.read_text()[:2000])


def _make_html(root):
    (root / "v1.0-mini/scene.json").write_text("<html>404</html>")


def _zero_quaternion(root):
    path = root / "v1.0-mini/ego_pose.json"
    rows = json.loads(path.read_text())
    rows[0]["rotation"] = [0.0, 0.0, 0.0, 0.0]
    path.write_text(json.dumps(rows))


def _lose_a_row(root):
    path = root / "v1.0-mini/calibrated_sensor.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))


def _lose_a_map(root):
    (root / "maps").unlink()
    (root / "maps").mkdir()


def _lose_an_image(root):
    (root / "samples").unlink()
    (root / "samples").mkdir()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_remove_table, r"ego_pose\.json is missing"),
        (_truncate_table, "not valid JSON"),
        (_make_html, "scene.json is not a table"),
        (_zero_quaternion, "no unit quaternion"),
        (_lose_a_row, "do not fit together"),
        (_lose_a_map, "not complete: map mask"),
        (_lose_an_image, "and 20 more files named by the tables"),
    ],
)
def test_what_is_wrong_is_said(driving_folder, tmp_path, harm, sentence):
    copy = _copy(driving_folder, tmp_path)
    harm(copy)
    with pytest.raises(UserError, match=sentence):
        frames_of(open_tables(copy, "v1.0-mini"), "mini_train")


def test_wrong_names_are_said(driving_folder, devkit, tmp_path):
    with pytest.raises(UserError, match=r"no tables of version v1.0-trainval: it has v1.0-mini"):
        open_tables(driving_folder, "v1.0-trainval")
    with pytest.raises(UserError, match=r"has no v1\.0-\* folder"):
        open_tables(tmp_path / "nowhere", "v1.0-mini")
    with pytest.raises(UserError, match="has no split val; it has mini_train, mini_val"):
        frames_of(devkit, "val")


def test_other_files_are_not_infos(tmp_path):
    with pytest.raises(UserError, match=r"python tools/dataset_converters/nuscenes\.py"):
        read_infos(tmp_path / "infos.msgpack")
    (tmp_path / "infos.msgpack").write_bytes(b"\x80\x04K.")  # a pickle
    with pytest.raises(UserError, match="is not an info file"):
        read_infos(tmp_path / "infos.msgpack")
