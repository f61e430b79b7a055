"""Signed distance, opacities and cube of light against numbers of the released RISE-SDF code."""

import pytest
import torch
import torch.nn.functional as F

from perception.radiance import cubemap, environment, prefilter
from perception.radiance.compositing import alphas_to_weights
from perception.radiance.hash_sdf import HashSDF, ProgressiveHashGrid
from perception.radiance.neus import LearnedVariance, neus_alpha
from perception.radiance.occupancy import transmittance
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "tests/data/reference/rise_sdf"


def recorded(name: str) -> dict:
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


@pytest.fixture(scope="module")
def geometry():
    case = recorded("geometry")
    field = HashSDF(
        ProgressiveHashGrid(6, 2, 9, 6, start_level=2, start_step=60, update_steps=5), out_features=12, width=16
    )
    names = {
        "encoding.encoding.encoding.params": "encoding.params",
        "weight_g": "parametrizations.weight.original0",
        "weight_v": "parametrizations.weight.original1",
    }
    state = {}
    for name, value in case["state_dict"].items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        state[name] = value
    field.load_state_dict(state)
    return field, case


@pytest.mark.parametrize("step", [0, 70, 200])
def test_distance_gradient_and_curvature_at_a_step(geometry, step):
    field, case = geometry
    expected, points = case["outputs"][step], case["inputs"]["points"]
    field.update_step(step)
    assert field.eps == pytest.approx(expected["eps"], rel=1e-9)
    assert field.encoding.level == expected["level"]
    close = torch.testing.assert_close
    close(field.encoding((points + 1.5) / 3), expected["encoding"], rtol=0, atol=1e-5)
    found = field(points)
    close(found.sdf, expected["sdf"], rtol=0, atol=1e-5)
    close(found.feature, expected["feature"], rtol=0, atol=1e-5)
    close(found.gradient, expected["grad"], rtol=0, atol=1e-4)
    curvature = field.curvature(points, found.gradient, expected["rand_for_tangent"])
    close(curvature, expected["curvature"], rtol=0, atol=1e-3)


def test_opacities_and_their_gradients():
    case = recorded("neus_alpha")
    given = case["inputs"]
    for (anneal, variance), expected in case["outputs"]["cases"].items():
        deviation = LearnedVariance(variance)
        sdf, normal = (given[name].clone().requires_grad_() for name in ("sdf", "normal"))
        alpha = neus_alpha(sdf, normal, given["dirs"], given["dists"][:, 0], deviation.inv_s, anneal)
        alpha.sum().backward()
        torch.testing.assert_close(alpha.detach(), expected["alpha"], rtol=0, atol=1e-6)
        grads = (sdf.grad, normal.grad, deviation.variance.grad)
        for grad, name in zip(grads, ("dsdf", "dnormal", "dvariance")):
            torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-4 * float(expected[name].abs().max()))


def test_weights_of_rays():
    case = recorded("neus_alpha")
    alpha, rays = case["outputs"]["cases"][(1.0, 0.8)]["alpha"], case["inputs"]["ray_indices"]
    weights, left = alphas_to_weights(alpha, rays, 4, 0.0)
    torch.testing.assert_close(weights, case["outputs"]["weights"], rtol=0, atol=1e-6)
    torch.testing.assert_close(transmittance(alpha, rays), case["outputs"]["transmittance"], rtol=0, atol=1e-6)
    torch.testing.assert_close(1 - left, case["outputs"]["opacity"][:, 0], rtol=0, atol=1e-5)
    assert left[2] == 1  # the ray without samples


def test_cube_of_light():
    case = recorded("cubemap")
    assert environment.level_roughness(3) == [0.08, 0.5, 1.0]
    for name, bound in case["bounds"].items():
        assert prefilter.lobe_bound(float(name.partition("_")[2])) == pytest.approx(bound, abs=1e-9)
    close = torch.testing.assert_close
    close(environment.roughness_level(case["roughness"], 3), case["mip"], rtol=0, atol=1e-6)
    close(cubemap.sample_cube(case["diffuse"], case["dirs"]), case["eval_diffuse"], rtol=0, atol=1e-5)
    close(cubemap.latlong_to_cube(case["latlong"], 8), case["cube"], rtol=1e-5, atol=1e-5)
    close(cubemap.cube_to_latlong(case["cube"], 16, 32, released_rows=True), case["back"], rtol=1e-5, atol=1e-5)
    shown = cubemap.cube_to_latlong(case["cube"], 16, 32, up="y", released_rows=True)
    close(shown, case["display"], rtol=1e-5, atol=1e-5)


def test_filter_is_the_sum_of_the_published_weights():
    """Every pair of texels, without any symmetry."""
    texels = torch.rand(6, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    directions = cubemap.texel_directions(16, dtype=torch.float64).view(-1, 3)
    place = (torch.arange(16) - 8).abs()
    one = ((place + 1) / 8).atan() - (place / 8).atan()
    area = (one[:, None] * one).expand(6, 16, 16).reshape(-1).double()
    cosine = directions @ directions.T
    for roughness in (0.5, 1.0):
        half = F.normalize(directions[:, None] + directions, dim=-1)
        c, a = (directions[:, None] * half).sum(-1), roughness**2
        density = a**2 / (torch.pi * ((c * a**2 - c) * c + 1) ** 2)
        weights = torch.where(cosine >= prefilter.lobe_bound(roughness), cosine * density * area / 4, 0)
        expected = (weights @ texels.view(-1, 3).double()) / weights.sum(1, keepdim=True)
        made = prefilter.CubeFilter(16, *prefilter.specular_kernel(roughness), area="released", normalise=True)
        torch.testing.assert_close(made(texels).view(-1, 3).double(), expected, rtol=1e-5, atol=1e-6)
    expected = (cosine.clamp(0, 0.999) * area / 3.141592) @ texels.view(-1, 3).double()
    made = prefilter.CubeFilter(16, *prefilter.diffuse_kernel(), area="released", normalise=False)
    torch.testing.assert_close(made(texels).view(-1, 3).double(), expected, rtol=1e-5, atol=1e-6)


def test_sharp_lobes_have_the_published_rounding():
    """A corner of the first face, far enough from the rest for lobes of roughness 0.08."""
    case = recorded("sharp_lobes")
    light = environment.EnvironmentLight(64)
    with torch.no_grad():
        light.base.zero_()
        light.base[0, :16, :16] = case["base"]
    built = light.build().specular[0]
    torch.testing.assert_close(built[0, 3:13, 3:13].detach(), case["level"], rtol=2e-6, atol=1e-6)
    # Rounded weights are not symmetric: the adjoint is that of the weights themselves.
    filter = environment._filter(64, 0.08, "released", "cpu")
    x, y = torch.rand(2, 6, 64, 64, 1, generator=torch.Generator().manual_seed(0)).double()
    x = x.float().requires_grad_()
    (filter(x) * y.float()).sum().backward()
    there, back = (filter(x.detach()).double() * y).sum(), (x.detach().double() * x.grad.double()).sum()
    assert float(back) == pytest.approx(float(there), rel=1e-6)
