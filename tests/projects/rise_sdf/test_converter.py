"""The authors' checkpoints: names, shapes, both ways, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from perception.engine.errors import UserError
from perception.ops.hash_grid import hash_grid_layout
from projects.rise_sdf import converter
from projects.rise_sdf.settings import GridSettings
from projects.rise_sdf.texture import SharedTexture
from tests.conftest import REPOSITORY
from tests.projects.rise_sdf.cases import GRID, HEADS, rays, small_field


def authors_file(field):
    """As Lightning saves it; names written out from the published key list."""
    state = {
        f"model.{name}": value
        for name, value in {
            "scene_aabb": torch.tensor([-1.5] * 3 + [1.5] * 3),
            "variance.variance": field.surface.deviation.variance.detach(),
            "geometry.encoding.encoding.encoding.params": field.surface.sdf.encoding.params.detach(),
            "texture.dir_encoding.encoding.params": torch.zeros(0),
            "texture.FG_LUT": field.texture.table,
            "emitter.base": field.light.base.detach(),
            "occupancy_grid.resolution": torch.tensor([16] * 3).int(),
            "occupancy_grid.aabbs": torch.tensor([[-1.5] * 3 + [1.5] * 3]),
            "occupancy_grid.occs": field.surface.occupancy.occs,
            "occupancy_grid.binaries": field.surface.occupancy.binaries,
        }.items()
    }
    for number in (0, 2, 4):
        layer = field.surface.sdf.network.layers[number]
        parts = layer.parametrizations.weight
        for name, value in (("bias", layer.bias), ("weight_g", parts.original0), ("weight_v", parts.original1)):
            state[f"model.geometry.network.layers.{number}.{name}"] = value.detach()
    names = {
        "albedo": "albedo",
        "secondary": "indirect",
        "env": "radiance",
        "roughness": "roughness",
        "metallic": "metallic",
    }
    for theirs, ours in names.items():
        network = getattr(field.texture, ours).layers
        for number in range(0, len(network), 2):
            layer = network[number]
            state[f"model.texture.{theirs}_network.layers.{number}.weight"] = layer.weight.detach()
            state[f"model.texture.{theirs}_network.layers.{number}.bias"] = layer.bias.detach()
    return {"state_dict": state, "global_step": 80_000}


def test_a_file_of_the_authors_renders_the_same():
    field = small_field()
    given = authors_file(field)
    converted = converter.to_perception(given, GRID)
    assert converted.unmatched == []
    made = converter.load(converted.checkpoint)
    made.surface.set_step(100)
    made.surface.settings.num_samples = field.surface.settings.num_samples
    made.surface.anneal = field.surface.anneal
    made.indirect = field.indirect
    o, d = rays(20)
    with torch.no_grad():
        ours, theirs = (f(o, d, light=f.light.build()).colours["rgb_phys"] for f in (made, field))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    back = converter.to_authors(converted.checkpoint)
    assert back.checkpoint["state_dict"].keys() == given["state_dict"].keys()
    assert all(torch.equal(back.checkpoint["state_dict"][key], value) for key, value in given["state_dict"].items())
    assert back.checkpoint["global_step"] == 80_000


def test_every_head_may_have_its_own_size():
    sizes = {"albedo": (12, 3), "metallic": (10, 1), "roughness": (6, 2), "radiance": (8, 1), "indirect": (14, 2)}
    field = small_field()
    field.texture = SharedTexture(field.surface.settings.features, replace(HEADS, **sizes))
    given = authors_file(field)
    made = converter.load(converter.to_perception(given, GRID).checkpoint)
    assert {name: made.texture.settings.size(name) for name in sizes} == sizes
    state = field.texture.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in made.texture.state_dict().items())


def test_growth_of_files_is_rounded_as_in_tiny_cuda_nn():
    published = GridSettings().per_level_scale
    assert torch.tensor(published, dtype=torch.float32).item() == converter.GROWTH
    rounded, exact = (hash_grid_layout(16, 32, growth, 19) for growth in (converter.GROWTH, published))
    assert rounded[:2] == exact[:2]  # entries and vertices are the same
    assert (rounded.scales[-1], exact.scales[-1]) == (pytest.approx(8190.997, abs=5e-4), 8191)


def test_what_a_file_may_lack():
    given = authors_file(small_field())
    for key in ("FG_LUT",):
        del given["state_dict"][f"model.texture.{key}"]
    for key in ("occs", "binaries"):
        del given["state_dict"][f"model.occupancy_grid.{key}"]
    made = converter.load(converter.to_perception(given, GRID).checkpoint)
    assert made.texture.table.shape == (1, 256, 256, 2)
    assert bool(made.surface.occupancy.binaries.all())


def test_files_that_are_refused():
    given = authors_file(small_field())
    with pytest.raises(UserError, match=r"hash grid has .* numbers, but one of 4 levels from 32"):
        converter.to_perception(given)
    with pytest.raises(UserError, match="hash grid"):
        converter.to_perception(given, GridSettings(num_levels=4, base_resolution=5, log2_table_size=10))
    short = {"state_dict": {k: v for k, v in given["state_dict"].items() if "secondary" not in k}}
    with pytest.raises(UserError, match="weights are missing"):
        converter.to_perception(short, GRID)
    with pytest.raises(UserError, match="does not hold a RISE-SDF model"):
        converter.to_perception({"state_dict": {"conv.weight": torch.zeros(1)}})
    with pytest.raises(UserError, match="no settings"):
        converter.load(given)


@pytest.mark.slow
def test_tool(tmp_path):
    given = authors_file(small_field())
    torch.save(given, tmp_path / "authors.ckpt")
    command = [sys.executable, "tools/convert_checkpoint.py", "rise_sdf", str(tmp_path / "authors.ckpt")]
    refused = subprocess.run([*command, str(tmp_path / "a.pth")], cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "error: the hash grid has" in refused.stderr
    assert "Traceback" not in refused.stderr
    torch.save(converter.to_perception(given, GRID).checkpoint, tmp_path / "ours.pth")
    command[-1] = str(tmp_path / "ours.pth")
    subprocess.run([*command, str(tmp_path / "back.ckpt"), "--to", "authors"], cwd=REPOSITORY, check=True)
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)
    assert back["state_dict"].keys() == given["state_dict"].keys()
