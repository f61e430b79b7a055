"""What `rig.json` may state: right calibrations run, each fault of the kinds that users meet has its sentence."""

import json

import numpy as np
import pytest

from perception.engine.errors import UserError
from perception.inference.rigs.options import Choice
from perception.inference.rigs.reader import RigReader


@pytest.fixture
def scan(rig, tmp_path):
    """What is found after a camera was changed."""

    def run(alter, name="CAM_FRONT"):
        content = json.loads((rig / "rig.json").read_text())
        alter(content["cameras"][name])
        (rig / "rig.json").write_text(json.dumps(content))
        return RigReader(Choice()).scan(rig, (), tmp_path / "out")

    return run


def posed(function):
    def alter(camera):
        camera["ego_from_camera"] = function(np.array(camera["ego_from_camera"])).tolist()

    return alter


FAULTS = {
    "transposed": (posed(lambda pose: pose.T), "the last row is not 0 0 0 1; the matrix looks transposed"),
    "inverted": (posed(np.linalg.inv), "does not stand upright .*: is this the opposite pose"),
    "vehicle axes": (posed(lambda pose: np.block([[np.eye(3), pose[:3, 3:]], [pose[3:]]])), "does not stand upright"),
    "OpenGL axes": (posed(lambda pose: pose @ np.diag([1.0, -1, -1, 1])), "does not stand upright"),
    "millimetres": (
        posed(lambda pose: pose * np.vstack([[[1, 1, 1, 1000]] * 3, [[1] * 4]])),
        r"2\d+\.\d m away .* metres are expected",
    ),
    "mirrored": (posed(lambda pose: pose @ np.diag([-1.0, 1, 1, 1])), "are no rotation"),
    "scaled": (posed(lambda pose: pose @ np.diag([2.0, 2, 2, 1])), "are no rotation"),
    "a quaternion": (lambda camera: camera.update(ego_from_camera=[[1, 0, 0, 0], [0, 0, 0]]), "4 x 4 numbers"),
    "another size": (
        lambda camera: camera.update(intrinsics=[[1266, 0, 816], [0, 1266, 491], [0, 0, 1]]),
        r"principal point \(816, 491\) lies outside of an image of 64 x 36: are the intrinsics those of another size",
    ),
    "transposed intrinsics": (
        lambda camera: camera.update(intrinsics=np.array(camera["intrinsics"]).T.tolist()),
        "intrinsics are ..fx, 0, cx.",
    ),
    "four numbers": (lambda camera: camera.update(intrinsics=[[50, 50, 32, 18]]), "a matrix of 3 x 3"),
    "an offset": (
        lambda camera: camera.update(intrinsics=[[50, 0, 32, 4], [0, 50, 18, 0], [0, 0, 1, 0]]),
        "the fourth column of intrinsics is not 0",
    ),
    "distortion": (lambda camera: camera.update(distortion=[0.1, 0.0]), "unknown field `distortion`"),
    "another name": (
        lambda camera: camera.update(camera_from_ego=camera.pop("ego_from_camera")),
        r"unknown field `camera_from_ego`|missing required field `ego_from_camera`",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(scan, fault):
    alter, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        scan(alter)


def test_intrinsics_of_three_shapes(scan):
    def padded(shape):
        def alter(camera):
            matrix = np.eye(4)
            matrix[:3, :3] = np.array(camera["intrinsics"])[:3, :3]
            camera["intrinsics"] = matrix[: shape[0], : shape[1]].tolist()

        return alter

    found = [scan(padded(shape)).sources[0].details.cameras for shape in ((3, 3), (3, 4), (4, 4))]
    assert found[0] == found[1] == found[2]


def test_folders_of_other_kinds(tmp_path, rig):
    reader = RigReader(Choice())
    with pytest.raises(UserError, match=r"is no folder of a rig: neither rig\.json is there, nor tables of nuScenes"):
        reader.scan(tmp_path, (), tmp_path / "out")
    with pytest.raises(UserError, match="--version and --split are for nuScenes"):
        RigReader(Choice(split="val")).scan(rig, (), tmp_path / "out")
    with pytest.raises(UserError, match="there is no scene evening"):
        RigReader(Choice(scenes=("evening",))).scan(rig, (), tmp_path / "out")
    (rig / "rig.json").write_text("{")
    with pytest.raises(UserError, match=r"rig\.json: Input data was truncated"):
        reader.scan(rig, (), tmp_path / "out")
