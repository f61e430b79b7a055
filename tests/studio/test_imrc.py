"""Densities in the units of the world, and the command `imrc`."""

import json
import sys

import numpy as np
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from PIL import Image

from perception.datasets.synthetic import radiance, shelves
from perception.engine.errors import UserError
from perception.geometry.rays import NDC
from perception.radiance.sparse_grid import SparseGrid
from perception.studio.density import density_model, density_volume, grid_size
from perception.studio.errors import SceneError
from perception.studio.imrc import Settings, main, run
from projects.activenerf.config import activenerf_llff
from projects.nerf_4k.forward_facing import MpiModelConfig
from projects.streamrf.config import streamrf_tiny
from projects.vqrf.config import vqrf_tiny
from tests.projects.activenerf.runs import small_config, train

pytestmark = pytest.mark.xdist_group("nerfstudio")


def make(config, box=((-1.5, -1.5, -1.5), (1.5, 1.5, 1.5))):
    return config.setup(scene_box=SceneBox(aabb=torch.tensor(box)), num_train_data=1).eval()


def test_density_of_voxel_grids_is_what_steps_absorb():
    model = make(vqrf_tiny.config.pipeline.model)
    field = model.field
    torch.nn.init.uniform_(field.density.grid, 2, 8)
    points = field.xyz_min + (field.xyz_max - field.xyz_min) * torch.rand(50, 3)
    sigma = model.density_at(points)
    step = model.config.stepsize * float(field.voxel_size)  # world units between the samples of a ray
    alpha = field.activate(field.density(points), interval=model.config.stepsize * float(field.voxel_size_ratio))
    assert torch.allclose(1 - torch.exp(-sigma * step), alpha, atol=1e-6)
    assert 0.01 < float(alpha.mean()) < 0.99
    assert float(model.density_at(torch.tensor([[9.0, 0.0, 0.0]]))) == 0
    field.fast_color_thres = 1.0
    assert float(model.density_at(points).max()) == 0


def test_density_of_planes_is_what_a_ray_across_them_absorbs():
    model = make(MpiModelConfig(compute_lpips=False))
    field = model.field
    torch.nn.init.uniform_(field.density.grid, -2, 0)
    field.fast_color_thres = 0.0
    steps = int((field.mpi_depth - 1) / model.config.stepsize)
    places = torch.arange(steps + 1) / steps * 2 - 1
    points = torch.stack([places * 0 + 0.1, places * 0 - 0.3, places], -1)
    sigma = model.density_at(points)
    passed = field(
        torch.tensor([[0.1, -0.3, -1.0]]),
        torch.tensor([[0.0, 0.0, 2.0]]),
        torch.tensor([[0.0, 0.0, -1.0]]),
        stepsize=model.config.stepsize,
    ).alphainv_last
    assert float(torch.exp(-sigma.sum() * 2 / steps)) == pytest.approx(float(passed), rel=1e-3)
    assert model.density_space().ndc == NDC(1.0, 1.0)


def test_density_of_other_methods():
    model = make(streamrf_tiny.config.pipeline.model)
    model.ndc.copy_(torch.tensor([20.0, 10.0, 40, 20]))
    model.grid.radius.copy_(torch.tensor([1.0, 2.0, 1.0]))
    model.grid.center.copy_(torch.tensor([0.0, 0.5, 0.0]))
    grid = SparseGrid.full((2, 2, 2), (1.0, 2.0, 1.0))
    model.grid.replace(grid.active, torch.arange(8.0)[:, None] - 1, grid.sh)
    space = model.density_space()
    assert space.box.tolist() == [[-1.0, -2.5, -1.0], [1.0, 1.5, 1.0]]
    assert space.ndc == NDC(1.0, 1.0)
    # Rows of the grid run downwards.
    volume = density_volume(model, space.box, (2, 2, 2), "cpu")
    assert volume.flip(1).reshape(-1).tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    model = make(activenerf_llff.config.pipeline.model)
    assert model.density_space().ndc == NDC(1.0, 1.0)
    with pytest.raises(SceneError, match="the method other has no density"):
        density_model(torch.nn.Linear(1, 1), "other")


def test_volumes_have_cubes():
    assert grid_size(torch.tensor([[-1.0, -2.0, 0.0], [1.0, 2.0, 0.001]]), 40) == (20, 40, 2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "scene"
    radiance.write(out, radiance.Params(num_train=6, num_val=2, num_test=4, size=16, num_objects=2))
    return out


@pytest.fixture(scope="module")
def finished(scene, tmp_path_factory):
    config = small_config(scene, tmp_path_factory.mktemp("runs"))
    config.pipeline.model.active_iters = ()
    return train(config)


@pytest.fixture
def registered(finished, monkeypatch):
    monkeypatch.setitem(all_methods, "activenerf-tiny", finished.config)
    return finished.base_dir / "config.yml"


def test_command(registered, tmp_path, monkeypatch, capsys):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"results": {"psnr": 9.5}}))
    out = tmp_path / "scores"
    arguments = ["imrc", "--load-config", str(registered), "--resolution", "10", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--metrics", str(metrics)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "9 coefficients are fitted to each voxel, and there are 4 views" in said
    found = json.loads((out / "imrc.json").read_text())
    assert f"IMRC {found['imrc']:.3f} dB: 10 x 10 x 10 voxels, 4 views" in said
    assert found["background"] == "high-frequency"
    assert found["size"] == [10, 10, 10]
    assert json.loads(metrics.read_text())["results"] == {"psnr": 9.5, "imrc": found["imrc"]}
    with np.load(out / "imrc.npz") as volumes:
        mean = volumes["residual"].sum(dtype=np.float64) / volumes["weight"].sum(dtype=np.float64)
        assert -10 * np.log10(mean) == pytest.approx(found["imrc"], abs=1e-3)
        assert volumes["box"].tolist() == found["box"] == [[-1.5] * 3, [1.5] * 3]
        assert float(volumes["density"].max()) > 0
        assert float(volumes["scale"]) == 1
    with Image.open(out / "imrc.png") as picture:
        assert picture.width > 800
    run(Settings(registered, out, 9, (-1, -1, -0.5, 1, 1, 0.5), "all", "white"))
    other = json.loads((out / "imrc.json").read_text())
    assert other["size"] == [9, 9, 4]
    assert other["num_views"] == 10
    assert other["background"] == "white"


def test_what_cannot_be_scored_is_said(registered, tmp_path):
    for changed, sentence in (
        ({"resolution": 1}, "--resolution must be from 2 to 1024, not 1"),
        ({"box": (0, 0, 0, 1, 1, 0)}, "--box: least x, y, z must be below greatest"),
        ({"near_clip": -1.0}, "--near-clip must not be negative"),
        ({"metrics": tmp_path / "none.json"}, "is not a file that ns-eval wrote"),
        ({"load_config": tmp_path / "config.yml"}, "there is no .*config.yml"),
    ):
        settings = Settings(**{"load_config": registered, "out": tmp_path / "out", **changed})
        with pytest.raises(UserError, match=sentence):
            run(settings)


def test_forward_facing(tmp_path, monkeypatch):
    data = tmp_path / "shelves"
    shelves.write(data, shelves.Params(views=8, height=15, width=21, scale=2))
    config = small_config(data, tmp_path / "runs", activenerf_llff)
    config.pipeline.model.active_iters = ()
    finished = train(config)
    monkeypatch.setitem(all_methods, config.method_name, finished.config)
    run(Settings(finished.base_dir / "config.yml", tmp_path / "out", 8, views="all"))
    found = json.loads((tmp_path / "out/imrc.json").read_text())
    assert found["coordinates"] == "normalised device coordinates"
    assert found["background"] == "none"
    assert found["imrc"] > 0
    with pytest.raises(SceneError, match="--views test: what 1 view shows fits any geometry: take --views all"):
        run(Settings(finished.base_dir / "config.yml", tmp_path / "out", 8))
