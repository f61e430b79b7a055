"""The built-in radiance scenes: exact, deterministic, in layouts that name the same cameras."""

import filecmp
import json

import numpy as np
import pytest
from PIL import Image

from perception.datasets.synthetic import radiance, raycasting
from perception.datasets.synthetic.raycasting import Box, Scene, Sphere, Texture

PARAMS = radiance.Params(num_train=3, num_val=1, num_test=2, size=32, num_objects=4)
PLAIN = Texture("plain", (1.0, 0.5, 0.2), (0.0, 0.0, 0.0), 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("radiance") / "scene"
    radiance.write(out, PARAMS)
    return out


def test_depth_lies_on_a_surface_and_normals_face_the_camera(folder):
    scene, poses = radiance.scene_of(PARAMS), radiance.cameras_of(PARAMS)["train"]
    for number, pose in enumerate(poses):
        exact = np.load(folder / f"geometry/train_{number:03d}.npz")
        origins, directions = radiance.rays(pose, 32, PARAMS.focal, np.full((1, 2), 0.5))
        depth = exact["depth"].reshape(-1).astype(np.float64)
        hit = np.isfinite(depth)
        assert 0.05 < hit.mean() < 0.9
        points = origins[hit] + depth[hit, None] * directions[hit]  # directions are 1 long along the axis
        assert np.abs(scene.signed_distance(points)).max() < 1e-5
        normals = exact["normals"].reshape(-1, 3)
        np.testing.assert_allclose(np.linalg.norm(normals[hit], axis=-1), 1, atol=1e-6)
        assert ((normals[hit] * directions[hit]).sum(-1) < 1e-6).all()
        assert not normals[~hit].any()
        before = origins[hit] + (depth[hit, None] - 1e-3) * directions[hit]
        assert (scene.signed_distance(before) > 0).all()


def test_everything_lies_between_near_and_far():
    for seed in range(8):
        bounds = radiance.scene_of(radiance.Params(seed=seed, num_objects=1 + seed)).bounds()
        assert np.abs(bounds).max() <= 1
        assert 4 - np.linalg.norm(bounds, axis=1).max() > 2


def test_objects_do_not_touch():
    scene = radiance.scene_of(radiance.Params(num_objects=9))
    assert len(scene.solids) == 10
    for one in scene.solids[1:]:
        for two in scene.solids[1:]:
            if isinstance(one, Sphere) and isinstance(two, Sphere) and one is not two:
                assert np.linalg.norm(np.subtract(one.centre, two.centre)) > one.radius + two.radius


def test_images_have_clean_alpha(folder):
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "train").glob("*.png"))])
    assert pixels.shape == (3, 32, 32, 4)
    levels = set(np.unique(pixels[..., 3]).tolist())
    assert {0, 255} < levels <= {round(255 * hits / 9) for hits in range(10)}
    edge = (pixels[..., 3] > 0) & (pixels[..., 3] < 255)
    assert pixels[edge][:, :3].mean() > 60  # straight colours do not darken towards the edge


def test_solids_are_hit_where_they_should():
    scene = Scene((Sphere((0, 0, 0), 1.0, PLAIN), Box((3.0, 0, 0), (0.5, 1, 1), np.pi / 2, PLAIN)))
    origins = np.array([[-5.0, 0, 0], [-5, 0, 2], [3, 5, 0], [3, 0, 5]])
    directions = np.array([[2.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, -1]])
    hits = scene.cast(origins, directions)
    assert hits.parameter.tolist() == pytest.approx([2, np.inf, 4.5, 4])
    np.testing.assert_allclose(hits.normals[[0, 2, 3]], [[-1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-12)
    assert scene.inside(np.array([[0.5, 0, 0], [3.9, 0, 0], [3, 0.9, 0], [9, 9, 9.0]])).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_views_agree_on_the_surface():
    """A point seen in one view is, seen from another, either where it was or behind something nearer."""
    scene, (one, two, _) = radiance.scene_of(PARAMS), radiance.cameras_of(PARAMS)["train"]
    origins, directions = radiance.rays(one, 32, PARAMS.focal, np.full((1, 2), 0.5))
    hits = scene.cast(origins, directions)
    seen = np.isfinite(hits.parameter)
    points = origins[seen] + hits.parameter[seen, None] * directions[seen]
    towards = points - two[:3, 3]  # a parameter of 1 is the point itself
    facing = (hits.normals[seen] * towards).sum(-1) < -1e-3
    again = scene.cast(np.broadcast_to(two[:3, 3], towards.shape), towards)
    assert (again.parameter[facing] < 1 + 1e-9).all()
    shared = facing & (again.parameter > 1 - 1e-9)
    assert shared.sum() > 50
    np.testing.assert_allclose(again.normals[shared], hits.normals[seen][shared], atol=1e-9)
    difference = np.abs(again.colours[shared] - hits.colours[seen][shared]).max(-1)
    assert 0.01 < difference.max() <= raycasting.GLOSS + 1e-9  # only the gloss depends on the view


def test_rays_are_independent_of_their_number(monkeypatch):
    scene, pose = radiance.scene_of(PARAMS), radiance.cameras_of(PARAMS)["val"][0]
    at_once = radiance.render(scene, pose, 32, PARAMS.focal)
    monkeypatch.setattr(raycasting, "RAYS_AT_ONCE", 1000)  # does not divide the number of rays
    for whole, parts in zip(at_once, radiance.render(scene, pose, 32, PARAMS.focal), strict=True):
        np.testing.assert_array_equal(parts, whole)
    assert scene.cast(np.zeros((0, 3)), np.zeros((0, 3))).colours.shape == (0, 3)


def test_cameras_look_at_the_origin():
    for pose in radiance.cameras_of(PARAMS)["test"]:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(pose[:3, 3] - 4 * pose[:3, 2], 0, atol=1e-12)
        assert pose[2, 1] > 0  # upright


def test_same_parameters_same_bytes(folder, tmp_path):
    radiance.write(tmp_path / "again", PARAMS)
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert len(names) == 6 * 2 + 3 + 1
    _, different, missing = filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False)
    assert not different
    assert not missing


def test_layouts_describe_the_same_cameras(folder, tmp_path):
    poses = np.concatenate(list(radiance.cameras_of(PARAMS).values()))
    frames = [
        frame
        for split in ("train", "val", "test")
        for frame in json.loads((folder / f"transforms_{split}.json").read_text())["frames"]
    ]
    np.testing.assert_allclose([frame["transform_matrix"] for frame in frames], poses)
    radiance.write(tmp_path / "nsvf", radiance.Params(**{**vars(PARAMS), "layout": "nsvf"}))
    flip = np.diag([1, -1, -1, 1])
    stored = [np.loadtxt(path) @ flip for path in sorted((tmp_path / "nsvf/pose").glob("*.txt"))]
    np.testing.assert_allclose(stored, poses, atol=1e-9)
    angle = json.loads((folder / "transforms_train.json").read_text())["camera_angle_x"]
    focal = float((tmp_path / "nsvf/intrinsics.txt").read_text().split()[0])
    assert focal == pytest.approx(16 / np.tan(angle / 2)) == pytest.approx(PARAMS.focal)


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"size": 4}, {"num_objects": 13}, {"seed": -1}, {"layout": "dtu"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("num_")):
        radiance.Params(**wrong)


def test_command_writes_it(run_tool, tmp_path):
    options = ("--num-train", 2, "--num-val", 1, "--num-test", 1, "--size", 12)
    done = run_tool("make_demo_data", "radiance", "--out", tmp_path / "scene", *options)
    assert done.code == 0
    assert "train: 2 images" in done.out
    assert (tmp_path / "scene/transforms_test.json").is_file()
