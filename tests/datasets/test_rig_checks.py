"""What is seen before a training on rigs: right data pass, and each fault has its sentence."""

import shutil

import msgspec
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from perception.datasets.driving.infos import decode_frame, read_infos, write_infos
from perception.datasets.driving.rigs import NuScenesRigs
from perception.engine.data_check import draw_sheets, examine
from perception.engine.errors import UserError


def config(root, ann_file="infos_mini_train.msgpack"):
    return Config(
        dict(train_dataloader=dict(dataset=dict(type=NuScenesRigs, data_root=str(root), ann_file=str(ann_file))))
    )


def test_right_data_pass(driving_folder):
    report = examine(config(driving_folder), ("train",))
    assert report.errors == []
    assert report.warnings == []
    facts = "\n".join(report.sections[0].facts)
    assert "3 frames of 1 scenes" in facts
    assert "traffic_cone" in facts
    assert "m/s on average" in facts


def test_a_sheet_is_drawn(driving_folder, tmp_path):
    (path,) = draw_sheets(config(driving_folder), ("train",), tmp_path)
    pixels = np.asarray(Image.open(path)).astype(int)
    assert pixels.shape[1] > 3 * 400
    assert pixels.shape[0] > 3 * 2 * 200
    colourful = np.ptp(pixels, axis=2) > 120  # lines of boxes
    assert 0.005 < colourful.mean() < 0.3


@pytest.fixture
def change(driving_folder, tmp_path):
    """Writes an info file whose frames were changed, and says what is found."""

    def run(alter):
        frames = [decode_frame(raw) for raw in read_infos(driving_folder / "infos_mini_train.msgpack").frames]
        path = tmp_path / "infos.msgpack"
        write_infos(path, "v1.0-mini", "mini_train", [alter(frame) for frame in frames])
        return examine(config(driving_folder, path), ("train",))

    return run


def _with_poses(frame, alter):
    changed = {
        name: msgspec.structs.replace(camera, lidar_from_camera=alter(np.array(camera.lidar_from_camera)).tolist())
        for name, camera in frame.cameras.items()
    }
    return msgspec.structs.replace(frame, cameras=changed)


def test_transposed_and_opposite_poses(change):
    report = change(lambda frame: _with_poses(frame, np.transpose))
    assert any("last row of a pose is not 0 0 0 1; is the matrix transposed?" in error for error in report.errors)
    report = change(lambda frame: _with_poses(frame, lambda pose: pose @ np.diag([1, 1, -1, 1])))
    assert any("determinant -1.000" in error for error in report.errors)
    far = np.eye(4)
    far[0, 3] = 600
    report = change(lambda frame: _with_poses(frame, lambda pose: far @ pose))
    assert any("m away from the LiDAR" in warning for warning in report.warnings)


def test_a_vehicle_that_stands_or_flies(change):
    report = change(lambda frame: msgspec.structs.replace(frame, global_from_ego=np.eye(4).tolist()))
    assert any("are the same; models that look back" in warning for warning in report.warnings)
    report = change(lambda frame: msgspec.structs.replace(frame, timestamp=frame.timestamp // 1000))
    assert any("the vehicle would drive" in error for error in report.errors)


def test_missing_views_and_classes(change):
    def without(frame):
        cameras = {name: camera for name, camera in frame.cameras.items() if name != "CAM_BACK"}
        return msgspec.structs.replace(frame, cameras=cameras)

    report = change(without)
    assert any("3 views are missing, the first is CAM_BACK" in error for error in report.errors)

    def renamed(frame):
        names = [name.replace("traffic_cone", "cone") for name in frame.objects.names]
        return msgspec.structs.replace(frame, objects=msgspec.structs.replace(frame.objects, names=names))

    assert any("there are no objects of traffic_cone" in warning for warning in change(renamed).warnings)


def test_files_that_are_missing_or_resized(driving_folder, tmp_path):
    shutil.copytree(driving_folder, tmp_path / "copy")
    one, two, *_ = sorted((tmp_path / "copy/samples/CAM_FRONT").glob("scene-0061*"))
    one.unlink()
    Image.new("RGB", (48, 27)).save(two)
    errors = "\n".join(examine(config(tmp_path / "copy"), ("train",)).errors)
    assert one.name in errors
    assert two.name in errors


def test_what_makes_the_infos_is_said(driving_folder, tmp_path):
    shutil.copytree(driving_folder / "v1.0-mini", tmp_path / "set/v1.0-mini")
    command = f"python tools/dataset_converters/nuscenes.py {tmp_path / 'set'} --version v1.0-mini"
    with pytest.raises(UserError, match="make it with: ") as error:
        examine(config(tmp_path / "set"), ("train",))
    assert command in str(error.value)
    with pytest.raises(UserError, match="link or copy the data set there"):
        examine(config(tmp_path / "nothing"), ("train",))


def test_the_infos_of_a_mini_are_named(driving_folder, tmp_path):
    """nuScenes' own v1.0-mini, whose converted files bear other names than recipes ask for."""
    shutil.copytree(driving_folder, tmp_path / "set")
    for split in ("train", "val"):
        (tmp_path / "set" / f"infos_{split}.msgpack").unlink()
    with pytest.raises(UserError, match=r"infos_train\.msgpack is missing") as error:
        examine(config(tmp_path / "set", "infos_train.msgpack"), ("train",))
    for loader, split in (("train", "train"), ("val", "val"), ("test", "val")):
        assert f"{loader}_dataloader.dataset.ann_file=infos_mini_{split}.msgpack" in str(error.value)
    assert examine(config(tmp_path / "set"), ("train",)).errors == []
