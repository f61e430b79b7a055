"""Glossy scenes: layout, exact maps, and light that agrees with another computation."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from perception.datasets.hdr_images import read_hdr, read_latlong, write_hdr
from perception.datasets.synthetic import glossy
from perception.datasets.synthetic.raycasting import Scene, Sphere, Texture
from perception.engine.errors import UserError
from perception.radiance.cubemap import latlong_directions, sample_latlong
from perception.radiance.environment import EnvironmentLight
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "glossy"
    glossy.write(out, glossy.Params(num_train=2, num_val=1, num_test=1, size=32))
    return out


def test_layout(scene):
    assert sorted(path.name for path in scene.iterdir() if path.is_dir()) == [
        "lights",
        "test_000",
        "train_000",
        "train_001",
        "val_000",
    ]
    meta = json.loads((scene / "train_001/metadata.json").read_text())
    pose = np.array([float(value) for value in meta["cam_transform_mat"].split(",")]).reshape(4, 4)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    names = {path.name for path in (scene / "val_000").iterdir()}
    assert {"rgba.png", "rgba_sunset.png", "rgba_studio.png", "albedo.exr", "roughness.exr", "normal.exr"} <= names


def test_maps_are_those_of_the_solids(scene):
    normal, albedo = read_hdr(scene / "test_000/normal.exr"), read_hdr(scene / "test_000/albedo.exr")
    covered = normal[..., 3] == 1
    assert 0.1 < covered.mean() < 0.6
    np.testing.assert_allclose(np.linalg.norm(normal[covered, :3], axis=-1), 1, atol=1e-3)
    roughness = np.unique(read_hdr(scene / "test_000/roughness.exr")[..., 0][covered].round(4))
    stated = {round(m.roughness, 4) for m in glossy.sample_scene(np.random.default_rng((0, 0))).materials}
    assert sum(bool(np.isclose(list(stated), r, atol=1e-3).any()) for r in roughness) >= 3
    assert albedo[covered].max() <= 1


def test_lights_agree_with_the_field_that_will_look_them_up(scene):
    image = read_latlong(scene / "lights/sunset.hdr")
    light = glossy.Light(image)
    directions = latlong_directions(16, 32).reshape(-1, 3)
    ours = sample_latlong(torch.from_numpy(image), directions).numpy()
    np.testing.assert_allclose(light.radiance(directions.double().numpy()), ours, rtol=1e-4, atol=1e-4)
    maps = EnvironmentLight.from_latlong(torch.from_numpy(image), 64, area="exact").build()
    diffuse = maps.diffuse_light(directions).detach().numpy()
    np.testing.assert_allclose(light.diffuse(directions.double().numpy()), diffuse, rtol=0.02, atol=0.02)


def test_a_smooth_mirror_shows_the_light_in_its_mirror_direction():
    """A ball of polished silver: every pixel is what the map holds in the mirror direction."""
    mirror = glossy.GlossyScene(
        Scene((Sphere((0.0, 0.0, 0.0), 0.7, Texture("plain", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.0)),)),
        (glossy.Material(0.02, 1.0),),
    )
    light = glossy.Light(glossy.make_light("studio"))
    pose = glossy.look_at(np.array([0.6, -0.64, 0.48]))
    view = glossy.render(mirror, pose, 120, [light], np.random.default_rng(0))
    middle = view.normal[60, 60]
    eye = pose[:3, 3] - 0.7 * middle
    eye /= np.linalg.norm(eye)
    expected = light.radiance((2 * (middle @ eye) * middle - eye)[None])[0]
    np.testing.assert_allclose(view.radiance[0][60, 60], expected, rtol=0.15, atol=0.02)


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_pictures_in_floating_point(tmp_path, suffix):
    pixels = np.random.default_rng(0).uniform(0, 50, (8, 16, 3)).astype(np.float32)
    pixels[0, 0] = (1e4, 0, 3)
    write_hdr(tmp_path / f"a{suffix}", pixels)
    found = read_latlong(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found, pixels, rtol=0, atol=0 if suffix == ".exr" else pixels.max(-1).max() / 128)
    assert found[0, 0, 0] == pytest.approx(1e4, rel=0.01)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_hdr(tmp_path / f"cut{suffix}")


def test_lights_that_are_refused(tmp_path):
    write_hdr(tmp_path / "wide.exr", np.ones((4, 6, 3)))
    with pytest.raises(UserError, match="6 x 4 pixels, but a lat-long map is twice as wide"):
        read_latlong(tmp_path / "wide.exr")
    bad = np.ones((4, 8, 3))
    bad[1, 2], bad[3, 3] = np.inf, np.nan
    write_hdr(tmp_path / "bad.exr", bad)
    with pytest.raises(UserError, match=r"2 pixels of .* are not finite numbers, the first in row 1, column 2"):
        read_latlong(tmp_path / "bad.exr")
    write_hdr(tmp_path / "dark.exr", np.full((4, 8, 3), -0.5))
    with pytest.raises(UserError, match=r"negative light, down to -0.5"):
        read_latlong(tmp_path / "dark.exr")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"must be a \.hdr or \.exr file"):
        read_latlong(tmp_path / "a.png")


@pytest.mark.slow
def test_command_writes_it(tmp_path):
    sizes = ["--num-train", "1", "--num-val", "1", "--num-test", "1", "--size", "12"]
    out = tmp_path / "glossy"
    command = [sys.executable, "tools/make_demo_data.py", "glossy", "--out", str(out), *sizes]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert (out / "train_000/rgba_studio.png").is_file()
