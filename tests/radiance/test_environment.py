"""Light: known answers, seams, adjoints, lat-long maps, and what can be learned of it."""

import pytest
import torch
import torch.nn.functional as F

from perception.radiance.cubemap import (
    cube_to_latlong,
    face_places,
    face_points,
    latlong_directions,
    latlong_to_cube,
    sample_cube,
    sample_latlong,
    sample_mips,
    texel_directions,
)
from perception.radiance.environment import EnvironmentLight
from perception.radiance.metrics import psnr
from perception.radiance.prefilter import CubeFilter, specular_kernel, texel_areas
from perception.radiance.spherical_harmonics import spherical_harmonics
from perception.radiance.split_sum import brdf_table, linear_to_srgb, look_up, srgb_to_linear


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def unit(count, seed=0):
    return F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)


def light_of(texels, **options):
    light = EnvironmentLight(texels.shape[1], **options)
    with torch.no_grad():
        light.base.copy_(texels)
    return light


def test_faces_are_in_opengls_order_and_orientation():
    corner = [face_points(torch.tensor(face), torch.tensor(0.5), torch.tensor(0.25)).tolist() for face in range(6)]
    assert corner == [
        [1, -0.25, -0.5],
        [-1, -0.25, 0.5],
        [0.5, 1, 0.25],
        [0.5, -1, -0.25],
        [0.5, -0.25, 1],
        [-0.5, -0.25, -1],
    ]
    face, x, y = face_places(torch.tensor(corner))
    assert face.tolist() == list(range(6))
    assert (x.tolist(), y.tolist()) == ([0.5] * 6, [0.25] * 6)


def test_constant_light_stays_constant():
    ones = torch.ones(6, 64, 64, 3)
    for area, low, high in (("released", 1.045, 1.117), ("exact", 0.995, 1.005)):
        maps = light_of(ones, area=area).build()
        assert all(float((level.detach() - 1).abs().max()) < 1e-5 for level in maps.specular)
        assert low <= float(maps.diffuse.detach().min()) <= float(maps.diffuse.detach().max()) <= high


def test_areas():
    assert 6 * float(texel_areas(32, "exact").sum()) == pytest.approx(4 * torch.pi, rel=1e-9)
    totals = [6 * float(texel_areas(size).sum()) / (4 * torch.pi) for size in (16, 32, 64)]
    assert totals == pytest.approx([1.082, 1.130, 1.154], abs=1e-3)


def test_look_up_at_texel_centres_is_exact():
    texels = random(6, 16, 16, 3)
    found = sample_cube(texels, texel_directions(16, dtype=torch.float64).float())
    torch.testing.assert_close(found, texels, rtol=0, atol=1e-5)


def test_no_seams():
    texels = random(6, 32, 32, 3)
    place = torch.linspace(-0.999, 0.999, 101)
    for axes in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        for first in (-1.0, 1.0):
            for second in (-1.0, 1.0):
                edge = torch.stack([torch.full_like(place, first), torch.full_like(place, second), place], -1)
                aside = edge.clone()
                edge[:, 0] *= 1 + 1e-4
                aside[:, 1] *= 1 + 1e-4
                order = [axes.index(axis) for axis in range(3)]
                difference = sample_cube(texels, edge[:, order]) - sample_cube(texels, aside[:, order])
                assert float(difference.abs().max()) < 5e-3


def test_gradients_of_look_ups():
    levels = [random(6, size, size, 2, seed=size).double().requires_grad_() for size in (8, 4)]
    directions = (unit(12, seed=3).double() * 1.3).requires_grad_()
    level = random(12, seed=4).double().mul(0.8).add(0.1).requires_grad_()

    def look(fine, coarse, directions, level):
        return sample_mips([fine, coarse], directions, level)

    assert torch.autograd.gradcheck(look, (*levels, directions, level), eps=1e-6, atol=1e-5)


def test_levels_have_no_slope_beyond_their_ends():
    levels = [torch.full((6, size, size, 1), float(value)) for value, size in enumerate((8, 4, 2))]
    level = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.9, 2.0, 3.0], requires_grad=True)
    read = sample_mips(levels, unit(7), level)[:, 0]
    read.sum().backward()
    torch.testing.assert_close(read.detach(), level.detach().clamp(0, 2))
    assert level.grad.round(decimals=4).tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_light_in_double_precision():
    texels, single = random(6, 64, 64, 3), light_of(random(6, 64, 64, 3)).build()
    light = light_of(texels).double()
    maps = light.build()
    (maps.specular[0].sum() + maps.diffuse.sum()).backward()
    assert light.base.grad.dtype == torch.float64
    for found, wanted in zip([*maps.specular, maps.diffuse], [*single.specular, single.diffuse]):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found.float(), wanted)


@pytest.mark.parametrize(("size", "roughness"), [(64, 0.08), (32, 0.5), (16, 1.0)])
def test_backward_is_the_adjoint(size, roughness):
    filtered = CubeFilter(size, *specular_kernel(roughness), area="released", normalise=True)
    x, y = random(6, size, size, 3).requires_grad_(), random(6, size, size, 3, seed=1)
    made = filtered(x)
    (made * y).sum().backward()
    assert float((x.grad * x).sum()) == pytest.approx(float((made * y).sum()), rel=1e-4)


def test_released_gradient_of_pooling_is_a_smooth_look_up():
    grads = []
    for exact in (False, True):
        light = light_of(random(6, 64, 64, 3), exact_pooling=exact)
        (light.build().diffuse * random(6, 16, 16, 3, seed=2)).sum().backward()
        grads.append(light.base.grad)
    blocks = grads[1].view(6, 32, 2, 32, 2, 3)
    assert float((blocks - blocks[:, :, :1, :, :1]).abs().max()) < 1e-7  # the same for the four texels of a mean
    assert float((grads[0] - grads[1]).abs().max()) > 1e-5
    assert float(grads[0].sum()) == pytest.approx(float(grads[1].sum()), rel=0.02)


def test_latlong_and_back():
    directions = latlong_directions(64, 128)
    image = 0.5 + 0.3 * directions + 0.2 * (directions[..., :1] * directions[..., 1:2])
    again = cube_to_latlong(latlong_to_cube(image, 64), 64, 128)
    assert float(psnr(again, image)) > 45
    assert float(psnr(again.flip(1), image)) < 20  # the other way around
    assert float(psnr(cube_to_latlong(latlong_to_cube(image, 64, up="y"), 64, 128, up="y"), image)) > 45
    mirrored = cube_to_latlong(latlong_to_cube(image, 64, mirrored=True), 64, 128, mirrored=True)
    assert float(psnr(mirrored, image)) > 45
    swapped = torch.cat([directions[:, :64].flip(1), directions[:, 64:].flip(1)], 1)  # each half the other way around
    torch.testing.assert_close(latlong_directions(64, 128, mirrored=True), swapped, rtol=0, atol=1e-6)


# Where the lower left of each face lies, by OpenGL's table of s and t; there, an L has its corner.
LOWER_LEFT = [(1, -0.5, 0.5), (-1, -0.5, -0.5), (-0.5, 1, 0.5), (-0.5, -1, -0.5), (-0.5, -0.5, 1), (0.5, -0.5, -1)]


@pytest.mark.parametrize("up", ["z", "y"])
def test_marks_on_faces_stay_where_they_are_and_are_not_mirrored(up):
    """An L of another brightness on each face, as a lat-long map and back."""
    size = 32
    marks = torch.zeros(6, size, size, 1)
    marks[:, 6:26, 6:10] = 1
    marks[:, 22:26, 6:22] = 1
    marks *= torch.arange(1.0, 7).view(6, 1, 1, 1)
    image = cube_to_latlong(marks, 256, 512, up=up)
    again = latlong_to_cube(image, size, up=up)
    assert float((again - marks).square().mean()) < 0.02 * float(marks.square().mean())
    corners = torch.tensor(LOWER_LEFT)
    seen = sample_latlong(image, corners, up=up)[:, 0].tolist()
    assert seen == pytest.approx([1, 2, 3, 4, 5, 6], abs=0.1)
    # The lower right is free: there a mirrored L would have its corner.
    right = [(1, -0.5, -0.5), (-1, -0.5, 0.5), (0.5, 1, 0.5), (0.5, -1, -0.5), (0.5, -0.5, 1), (-0.5, -0.5, -1)]
    assert sample_latlong(image, torch.tensor(right), up=up).abs().max() < 0.1


def test_rows_of_a_small_map_wrap_at_the_poles():
    image = torch.zeros(16, 32, 1)
    image[-1] = 1
    top = latlong_to_cube(image, 64)[4, 31:33, 31:33]  # around the upper pole, up="z"
    assert 0.3 < float(top.max()) <= 0.5
    assert float(latlong_to_cube(image, 64, wrap_rows=False)[4].max()) == 0


def test_axes_of_latlong_maps():
    quarters = torch.zeros(32, 64, 3)
    quarters[:, 30:34, 0] = 1  # middle column: +x
    quarters[:, 46:50, 1] = 1  # a quarter to the right: -y
    quarters[:2, :, 2] = 1  # top: +z
    cube = latlong_to_cube(quarters, 64)
    seen = sample_cube(cube, torch.tensor([[1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0], [-1.0, 0, 0]]))
    assert seen.round().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    up = sample_latlong(quarters, torch.tensor([[0.0, 0, -1], [1.0, 0, 0], [0, 1.0, 0]]), up="y")
    assert up.round().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_map_wraps_and_ends():
    image = torch.zeros(4, 8, 1)
    image[:, 0], image[:, -1] = 1.0, 3.0
    assert float(sample_latlong(image, torch.tensor([[-1.0, 0.0, 0.0]]))) == pytest.approx(2.0)


def test_sizes_that_cannot_be():
    for size in (32, 96):
        with pytest.raises(ValueError, match="power of two of at least 64"):
            EnvironmentLight(size)


def test_table_of_reflectance():
    table = brdf_table()
    for row, column, expected in ((0, 0, (0.0097, 0.9902)), (128, 64, (0.7599, 0.0795)), (255, 255, (0.3093, 0.0))):
        assert table[0, row, column].tolist() == pytest.approx(expected, abs=2e-3)
    assert float(table.sum(-1).max()) <= 1 + 1e-4
    cosine, roughness = torch.full((3,), 0.9), torch.tensor([0.1, 0.5, 1.0])
    scale, bias = look_up(table, cosine, roughness)
    assert (scale + bias)[:, 0].tolist() == pytest.approx([1.0, 0.909, 0.329], abs=2e-3)


def test_table_is_the_integral():
    """Against plain random half vectors."""
    generator = torch.Generator().manual_seed(0)
    share, turn = torch.rand(2, 400_000, generator=generator, dtype=torch.float64)
    table = brdf_table(64)
    for row, column in ((40, 5), (20, 30), (60, 50)):
        squared, cosine = ((row + 0.5) / 64) ** 4, (column + 0.5) / 64
        n_h = ((1 - share) / (1 + (squared - 1) * share)).sqrt()
        v_h = (1 - n_h**2).sqrt() * (1 - cosine**2) ** 0.5 * (turn * 2 * torch.pi).cos() + cosine * n_h
        n_l = (2 * v_h * n_h - cosine).clamp(min=0)
        lambdas = (
            n_l * (cosine**2 * (1 - squared) + squared) ** 0.5 + cosine * (n_l**2 * (1 - squared) + squared).sqrt()
        )
        value = 2 * n_l * v_h.clamp(min=0) / (lambdas.clamp(min=1e-9) * n_h)
        fresnel = (1 - v_h.clamp(min=0)) ** 5
        expected = [float(((1 - fresnel) * value).mean()), float((fresnel * value).mean())]
        assert table[0, row, column].tolist() == pytest.approx(expected, abs=4e-3)


def test_srgb_curve():
    values = torch.tensor([-0.1, 0.0, 0.002, 0.18, 1.0])
    assert linear_to_srgb(values).tolist() == pytest.approx([-1.292, 0.0, 0.02584, 0.46136, 1.0], abs=1e-4)
    torch.testing.assert_close(srgb_to_linear(linear_to_srgb(values)), values, rtol=1e-5, atol=1e-6)


def test_spherical_harmonics_are_orthonormal():
    values = spherical_harmonics(unit(200_000), 5)
    gram = 4 * torch.pi * values.T @ values / len(values)
    assert float((gram - torch.eye(25)).abs().max()) < 0.02
    axis = spherical_harmonics(F.normalize(torch.tensor([[0.3, 0.5, 0.7]]), dim=-1), 2)[0]
    assert (axis.sign()).tolist() == [1, -1, 1, -1]  # the signs of tiny-cuda-nn
    assert torch.autograd.gradcheck(lambda d: spherical_harmonics(d, 5), unit(4).double().requires_grad_())


def test_light_is_recovered_from_shading():
    torch.manual_seed(0)
    truth, learned = light_of(random(6, 64, 64, 3)), EnvironmentLight(64)
    normals, view = unit(6000, seed=1), unit(6000, seed=2)
    normals, view = (x[(normals * view).sum(-1) > 0][:3000] for x in (normals, view))
    albedo, metallic, roughness = torch.tensor([0.6, 0.4, 0.3]), 0.5, 0.15
    cosine = (normals * view).sum(-1)
    scale, bias = look_up(brdf_table(64), cosine, torch.full_like(cosine, roughness))
    mirror = 2 * cosine[:, None] * normals - view

    def shade(light):
        maps = light.build()
        diffuse = (1 - metallic) * albedo * maps.diffuse_light(normals)
        at_normal = 0.04 * (1 - metallic) + metallic * albedo
        return diffuse + (at_normal * scale + bias) * maps.specular_light(mirror, torch.full_like(cosine, roughness))

    target = shade(truth).detach()
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.mse_loss(shade(learned), target)
        loss.backward()
        optimizer.step()
    assert float(psnr(shade(learned), target)) > 33
