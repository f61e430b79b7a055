"""nerfstudio's tools over a finished run and `vqrf` over the same field: they show what is there."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import open3d
import pytest
import torch
import yaml
from nerfstudio.scripts.exporter import ExportCameraPoses, ExportPointCloud, ExportPoissonMesh, ExportTSDFMesh
from nerfstudio.scripts.render import RenderCameraPath, RenderInterpolated, SpiralRender
from nerfstudio.utils import install_checks
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.studio.errors import SceneError
from projects.vqrf import cli

pytestmark = pytest.mark.xdist_group("nerfstudio")
RADIUS = 0.6
POSE = radiance.cameras_of(radiance.Params())["test"][0]


@pytest.fixture(scope="module")
def ball(finished, tmp_path_factory) -> Path:
    """config.yml of a run whose field is an opaque ball about the origin, and its file."""
    config = deepcopy(finished.config)
    config.output_dir = tmp_path_factory.mktemp("ball")
    folder = config.get_base_dir()
    shutil.copytree(finished.base_dir, folder)
    (folder / "config.yml").write_text(yaml.dump(config))
    (checkpoint,) = (folder / "nerfstudio_models").iterdir()
    content = torch.load(checkpoint, weights_only=True)
    state = content["pipeline"]
    low, high = state["_model.field.xyz_min"], state["_model.field.xyz_max"]
    grid = state["_model.field.density.grid"]
    axes = [torch.linspace(0, 1, 2 * count + 1)[1::2] for count in grid.shape[2:]]  # centres of voxels
    centres = low + (high - low) * torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    grid[0, 0] = 400 * (RADIUS - centres.norm(dim=-1))
    state["_model.field.mask_cache.mask"] = torch.ones(grid.shape[2:], dtype=torch.bool)
    torch.save(content, checkpoint)
    return folder / "config.yml"


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch):
    """nerfstudio asks for it also where only pictures are written."""
    monkeypatch.setattr(install_checks, "check_ffmpeg_installed", lambda: None)


def distances(points) -> np.ndarray:
    return np.linalg.norm(np.asarray(points), axis=1)


def test_point_cloud_lies_on_the_surface(ball, tmp_path):
    ExportPointCloud(ball, tmp_path, num_points=3000, normal_method="open3d", num_rays_per_batch=1024).main()
    cloud = open3d.io.read_point_cloud(str(tmp_path / "point_cloud.ply"))
    points, normals = np.asarray(cloud.points), np.asarray(cloud.normals)
    assert len(points) >= 2900
    assert len(np.unique(points, axis=0)) > 0.5 * 8 * 24 * 24 * 0.2  # not the rays of one step over and over
    assert np.median(distances(points)) == pytest.approx(RADIUS, abs=0.05)
    assert np.percentile(distances(points), 95) < RADIUS + 0.15
    assert np.mean((normals * points).sum(1) / distances(points)) > 0.8  # they look outwards


def test_an_empty_field_is_said(finished, tmp_path):
    """Its exporter would look for opaque rays for ever."""
    with pytest.raises(SceneError, match="holds no surface to export"):
        ExportPointCloud(
            finished.base_dir / "config.yml", tmp_path, num_points=3000, normal_method="open3d", num_rays_per_batch=64
        ).main()


@pytest.mark.parametrize(
    ("exporter", "name"), [(ExportTSDFMesh, "tsdf_mesh.ply"), (ExportPoissonMesh, "poisson_mesh.ply")]
)
def test_meshes_have_the_shape_and_its_colours(ball, tmp_path, monkeypatch, exporter, name):
    reconstruct = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson
    coarse = staticmethod(lambda cloud, depth: reconstruct(cloud, depth=5, n_threads=1))  # its 9 take a minute
    monkeypatch.setattr(open3d.geometry.TriangleMesh, "create_from_point_cloud_poisson", coarse)
    settings = {"num_pixels_per_side": 32, "target_num_faces": 200}
    if exporter is ExportTSDFMesh:
        settings |= {"downscale_factor": 1, "resolution": [24, 24, 24]}
    else:
        settings |= {"num_points": 3000, "normal_method": "open3d", "num_rays_per_batch": 1024}
    exporter(ball, tmp_path, **settings).main()
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / name))
    assert np.median(distances(mesh.vertices)) == pytest.approx(RADIUS, abs=0.1)
    assert (tmp_path / "mesh.obj").is_file()
    texture = np.asarray(Image.open(tmp_path / "material_0.png"))[..., :3]
    assert 20 < texture.mean() < 235  # neither the background nor nothing
    assert texture.std() > 2


def test_cameras_are_exported(finished, tmp_path):
    ExportCameraPoses(finished.base_dir / "config.yml", tmp_path).main()
    frames = json.loads((tmp_path / "transforms_train.json").read_text())
    expected = finished.pipeline.datamanager.train_dataset.cameras.camera_to_worlds
    np.testing.assert_allclose([frame["transform"] for frame in frames], expected, atol=1e-6)


def test_paths_that_nerfstudio_makes_are_rendered(ball, tmp_path):
    """In Blender layout focal lengths come in double precision, poses in single."""
    SpiralRender(ball, tmp_path / "spiral", output_format="images", image_format="png", seconds=0.1).main()
    RenderInterpolated(ball, tmp_path / "between", output_format="images", interpolation_steps=2).main()
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "spiral").iterdir())]
    assert [picture.shape for picture in pictures] == [(24, 24, 3)] * 2
    assert all(picture.std() > 20 for picture in pictures)
    assert list((tmp_path / "between").iterdir())


@pytest.fixture(scope="module")
def ball_file(ball) -> Path:
    """The same ball as an uncompressed field."""
    from projects.vqrf.packing import load_model

    model = load_model(ball)
    path = ball.parent / "ball.pt"
    content = {
        "field": model.field.settings(),
        "render": model.render_settings(),
        "state_dict": model.field.state_dict(),
    }
    torch.save(content, path)
    return path


def camera_path(folder: Path, **changes) -> Path:
    frame = {"camera_to_world": POSE.reshape(-1).tolist(), "fov": 40.0, "aspect": 1.0}
    content = {"camera_type": "perspective", "render_height": 32, "render_width": 32, "seconds": 1.0}
    path = folder / "path.json"
    path.write_text(json.dumps({**content, "camera_path": [frame], **changes}))
    return path


def rendered(file: Path, path: Path) -> np.ndarray:
    out = path.parent / "frames"
    cli.run(["render", str(file), "--camera-path", str(path), "--out", str(out)])
    return np.asarray(Image.open(out / "00000.png")).astype(int)


def test_a_crop_shows_what_is_inside_on_its_colour(ball, ball_file, tmp_path):
    right = POSE[:3, 0]
    crop = {
        "crop_center": (right * 5).tolist(),  # the half of the ball that is on the right of the picture
        "crop_scale": [10.0, 10.0, 10.0],
        "crop_rot": [0.0, 0.0, float(np.arctan2(right[1], right[0]))],
        "crop_bg_color": {"r": 10, "g": 20, "b": 200},
    }
    path = camera_path(tmp_path, crop=crop)
    picture, whole = rendered(ball_file, path), rendered(ball_file, camera_path(tmp_path))
    assert (abs(picture[:, :15] - [10, 20, 200]).max(-1) <= 1).all()
    ball_pixels = np.s_[12:20, 18:20]
    assert abs(picture[ball_pixels] - whole[ball_pixels]).max() <= 12  # seen from the cut, without the left half
    assert abs(whole[ball_pixels] - 255).max() > 30
    path = camera_path(tmp_path, crop=crop)
    RenderCameraPath(
        ball, tmp_path / "theirs", camera_path_filename=path, output_format="images", image_format="png"
    ).main()
    theirs = np.asarray(Image.open(tmp_path / "theirs" / "00000.png")).astype(int)
    assert abs(theirs - picture).max() <= 1


@pytest.mark.parametrize(("kind", "shape", "halves"), [("omnidirectional", (64, 32), 0), ("vr180", (32, 64), 1)])
def test_both_eyes_of_a_stereo_path_are_rendered(ball_file, tmp_path, kind, shape, halves):
    picture = rendered(ball_file, camera_path(tmp_path, camera_type=kind))
    assert picture.shape[:2] == shape
    left, right = np.split(picture, 2, halves)
    assert (left != 255).any()
    assert (right != 255).any()
    assert (left != right).any()
    columns = [np.nonzero((eye != 255).any((0, 2)))[0].mean() for eye in (left, right)]
    assert columns[0] >= columns[1]  # the left eye sees a near thing further to the right
