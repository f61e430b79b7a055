"""`activenerf next`: poses are ranked without images, and useless ones are left out with a reason."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.engine.errors import UserError
from projects.activenerf.advice import advise
from projects.activenerf.cli import run
from projects.activenerf.finished_run import load_run
from projects.activenerf.maps import sees
from projects.activenerf.scoring import score_views
from tests.projects.activenerf.runs import small_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=8, num_val=2, num_test=2, size=16, num_objects=2))
    return out


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory):
    config = small_config(scene, tmp_path_factory.mktemp("runs"))
    config.pipeline.model.active_iters = ()
    return train(config)


@pytest.fixture
def write(tmp_path):
    """Writes a file of candidates."""

    def to_file(frames, **content):
        path = tmp_path / "cameras.json"
        path.write_text(json.dumps({**content, "frames": frames}))
        return path

    return to_file


def frames_of(scene, split="test"):
    return json.loads((scene / f"transforms_{split}.json").read_text())["frames"]


def turned_away(matrix):
    pose = np.array(matrix)
    pose[:3, [0, 2]] *= -1
    return pose.tolist()


def test_poses_are_ranked(finished, scene, write, tmp_path, capsys):
    frames = [*frames_of(scene), *frames_of(scene, "val")]
    poses = [{"transform_matrix": frame["transform_matrix"]} for frame in frames]
    poses.append({"transform_matrix": turned_away(frames[0]["transform_matrix"]), "file_path": "away"})
    poses.append({**frames_of(scene, "train")[1], "file_path": "taken"})
    poses.append({**poses[2], "file_path": "twice"})
    out = tmp_path / "next.json"
    config = finished.base_dir / "config.yml"
    run(["next", "--load-config", str(config), "--candidates", str(write(poses)), "--out", str(out), "--count", "2"])
    said = capsys.readouterr().out
    content = json.loads(out.read_text())
    assert len(content["next"]) == 2
    assert {entry["name"]: entry["reason"] for entry in content["rejected"]} == {
        "away": "what the other cameras look at lies -4 ahead of it, and the run sees from 2 to 6",
        "taken": "r_001.png has been taken from there",
        "twice": "it is the same view as pose 2",
    }
    assert "left out: taken: r_001.png has been taken from there" in said
    ranking = content["ranking"]
    assert [entry["score"] for entry in ranking] == sorted((entry["score"] for entry in ranking), reverse=True)
    assert ranking[0]["transform_matrix"] == poses[ranking[0]["number"]]["transform_matrix"]
    # The same scores as those of the views with their images.
    views = finished.pipeline.datamanager.split_dataset("test").cameras
    expected = score_views(finished.pipeline.model, views, 2)
    for entry in ranking:
        if entry["number"] < 2:
            assert entry["total"] == pytest.approx(expected[entry["number"]].total, rel=1e-5)
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


def test_size_does_not_decide(finished, scene, write):
    frame = frames_of(scene)[0]
    meta = json.loads((scene / "transforms_test.json").read_text())
    sizes = [{**frame, "w": side, "h": side, "file_path": str(side)} for side in (32, 64)]
    sizes[1]["transform_matrix"] = frames_of(scene)[1]["transform_matrix"]
    path = write(sizes, camera_angle_x=meta["camera_angle_x"])
    advice = advise(finished.base_dir / "config.yml", path, 2, 1, "cpu")
    assert [score.rays for score in advice.scores] == [32**2, 64**2]
    views = score_views(finished.pipeline.model, finished.pipeline.datamanager.split_dataset("test").cameras, 1)
    for score, view in zip(advice.scores, views):
        assert score.mean == pytest.approx(view.mean, rel=0.05)


def test_a_camera_that_stands_inside_is_left_out(finished, scene, write):
    """With a network that is full of fog."""
    model = load_run(finished.base_dir / "config.yml", "cpu").model
    assert torch.equal(model.field_fine.alpha_linear.bias, finished.pipeline.model.field_fine.alpha_linear.bias.cpu())
    near = np.array(frames_of(scene)[0]["transform_matrix"])
    near[:3, 3] *= 2.2 / 4
    path = write([{"transform_matrix": near.tolist(), "file_path": "near"}])
    state = finished.pipeline.model.state_dict()
    (checkpoint,) = finished.checkpoint_dir.iterdir()
    content = torch.load(checkpoint, weights_only=True)
    original = checkpoint.read_bytes()
    content["pipeline"]["_model.field_fine.alpha_linear.bias"] = torch.full_like(
        state["field_fine.alpha_linear.bias"], 50
    )
    torch.save(content, checkpoint)
    try:
        with pytest.raises(UserError, match="none of the 1 candidates would make a useful picture"):
            run(["next", "--load-config", str(finished.base_dir / "config.yml"), "--candidates", str(path)])
        advice = advise(finished.base_dir / "config.yml", path, 1, None, "cpu")
        assert advice.rejected == {0: "it stands in something (opacity 0.99 right before it)"}
    finally:
        checkpoint.write_bytes(original)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds neither frames"),
        ({"frames": []}, "lists no frames"),
        ({"frames": [{"transform_matrix": [[1, 2]]}]}, "not a 4 x 4 matrix of numbers"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist(), "w": 8, "h": 8}]}, "states a size, but no focal length"),
        ({"camera_path": []}, "without poses"),
    ],
)
def test_what_is_no_file_of_candidates(finished, tmp_path, content, sentence):
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=sentence):
        advise(finished.base_dir / "config.yml", path, 1, None, "cpu")


def test_maps(finished, scene, write, tmp_path):
    frames = frames_of(scene)
    out = tmp_path / "maps"
    config = str(finished.base_dir / "config.yml")
    run(["map", "--load-config", config, "--cameras", str(write(frames)), "--out", str(out), "--stride", "1"])
    listed = json.loads((out / "maps.json").read_text())
    assert listed["unit"] == "variance of a colour between 0 and 1"
    views = finished.pipeline.datamanager.split_dataset("test").cameras
    for number, entry in enumerate(listed["views"]):
        found = np.load(out / f"{entry['file']}.npz")
        expected = finished.pipeline.model.eval().get_outputs_for_camera(views[number : number + 1])["uncert"]
        np.testing.assert_allclose(found["uncert"], expected[..., 0], rtol=1e-3, atol=1e-6)
        assert found["seen_by"].max() <= 3
        with Image.open(out / f"{entry['file']}.png") as picture:
            assert picture.size == (480, 400)
    with pytest.raises(UserError, match="--brightest in"):
        run(["map", "--load-config", config, "--cameras", "cameras.json", "--brightest", "0"])


def test_what_a_camera_sees():
    """A camera at the origin that looks along -z at a wall in a distance of 2."""
    camera = Cameras(torch.eye(4)[:3], fx=4.0, fy=4.0, cx=4.0, cy=4.0, width=8, height=8)
    wall = torch.full((8, 8), 2.0)
    points = torch.tensor([[0.0, 0, -1.9], [0, 0, -2.3], [0, 0, 1], [1.5, 0, -1.4], [0.9, 0.9, -1.0]])
    assert sees(camera, points, wall).tolist() == [True, False, False, False, True]
    wall[:4] = 1.0  # the upper half is nearer
    assert sees(camera, torch.tensor([[0.0, 0.5, -1.5], [0, -0.5, -1.5]]), wall).tolist() == [False, True]


def test_numbers_that_make_no_sense(finished, tmp_path):
    with pytest.raises(UserError, match="--count must be at least 1, not 0"):
        run(["next", "--load-config", "config.yml", "--candidates", "cameras.json", "--count", "0"])
    with pytest.raises(UserError, match="there is no"):
        run(["next", "--load-config", str(tmp_path / "config.yml"), "--candidates", "cameras.json"])
