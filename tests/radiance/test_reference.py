"""DirectVoxGO against numbers recorded from the released code: the same samples, colours, losses and gradients."""

from pathlib import Path

import pytest
import torch

from perception.geometry.rays import pixel_rays
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.losses import dvgo_losses
from perception.radiance.sampling import sample_rays

CASE = torch.load(Path(__file__).parents[1] / "data/reference/vqrf/dvgo_render.pt", weights_only=True)
RENDER = {"near": 0.2, "bg": 1.0, "stepsize": 0.5}


def field(align_corners: bool) -> DirectVoxGO:
    made = DirectVoxGO(**CASE["meta"]["ctor"], align_corners=align_corners)
    made.load_state_dict(CASE["state_dict"])
    return made


def rays() -> tuple[torch.Tensor, ...]:
    return tuple(CASE["inputs"][name] for name in ("rays_o", "rays_d", "viewdirs"))


def test_rays_of_the_camera():
    inputs = CASE["inputs"]
    rays_o, rays_d = pixel_rays(inputs["H"], inputs["W"], inputs["K"], inputs["c2w"])
    torch.testing.assert_close(rays_o.reshape(-1, 3), inputs["rays_o"])
    torch.testing.assert_close(rays_d.reshape(-1, 3), inputs["rays_d"], atol=1e-6, rtol=0)


def test_resolution():
    made, expected = field(False), CASE["outputs"]
    assert made.world_size == tuple(expected["world_size"].tolist())
    assert float(made.voxel_size) == float(expected["voxel_size"])
    assert float(made.voxel_size_ratio) == float(expected["voxel_size_ratio"])


def test_samples_and_queries():
    made, expected, inputs = field(False), CASE["outputs"], CASE["inputs"]
    rays_o, rays_d, _ = rays()
    stepdist = float(0.5 * made.voxel_size)
    samples = sample_rays(rays_o, rays_d, made.xyz_min, made.xyz_max, near=0.2, stepdist=stepdist)
    assert samples.ray_id.tolist() == expected["sample_ray_id"].tolist()
    assert samples.step_id.tolist() == expected["sample_step_id"].tolist()
    torch.testing.assert_close(samples.points[:300], expected["sample_pts"], atol=1e-5, rtol=0)
    assert torch.equal(made.hit_mask(rays_o, rays_d, near=0.2, stepsize=0.5), expected["hit"])
    query = inputs["query_xyz"]
    torch.testing.assert_close(made.density(query), expected["query_density"], atol=1e-5, rtol=0)
    torch.testing.assert_close(made.k0(query), expected["query_k0"], atol=1e-5, rtol=0)
    assert torch.equal(made.mask_cache(query), expected["query_mask"])


@pytest.mark.parametrize("align_corners", [False, True])
def test_rendering(align_corners):
    outputs = field(align_corners)(*rays(), **RENDER)
    expected = CASE["outputs_align_corners_true" if align_corners else "outputs"]
    for name in ("rgb_marched", "alphainv_last", "depth", "weights"):
        if name in expected:
            torch.testing.assert_close(outputs[name], expected[name], atol=1e-5, rtol=0)
    if not align_corners:
        assert outputs["ray_id"].tolist() == expected["ray_id"].tolist()


def test_losses_and_gradients():
    made, expected = field(False), CASE["outputs"]
    outputs = made(*rays(), **RENDER)
    losses = dvgo_losses(outputs, CASE["inputs"]["target"], weight_entropy_last=0.001, weight_rgbper=0.01)
    torch.testing.assert_close(losses["rgb_loss"], expected["mse"], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["entropy_loss"], 0.001 * expected["entropy"], rtol=1e-5, atol=0)
    torch.testing.assert_close(losses["rgbper_loss"], 0.01 * expected["rgbper"], rtol=1e-5, atol=0)
    sum(losses.values()).backward()
    for name, parameter in made.named_parameters():
        gradient = CASE["grads"][name]
        scale = float(gradient.abs().max())
        own = parameter.grad[:, :1] if name == "k0.grid" else parameter.grad  # one channel was recorded
        torch.testing.assert_close(own, gradient, rtol=0, atol=1e-4 * scale, msg=name)


def test_state_dict_has_the_released_names():
    assert field(False).state_dict().keys() == CASE["state_dict"].keys()
