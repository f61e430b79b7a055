"""The field: stages, what mirror rays change, losses, and that it learns."""

import math

import pytest
import torch
import torch.nn.functional as F

from perception.radiance.split_sum import linear_to_srgb
from projects.rise_sdf.losses import loss_terms, weight_at
from projects.rise_sdf.neus import NeuS
from projects.rise_sdf.settings import GeometrySettings, HeadSettings
from projects.rise_sdf.surface import Surface
from projects.rise_sdf.texture import SharedTexture, named
from tests.projects.rise_sdf.cases import GEOMETRY, HEADS, rays, small_field


def test_published_sizes():
    texture = SharedTexture()
    inputs = {name: getattr(texture, name).layers[0].in_features for name in ("albedo", "indirect", "radiance")}
    assert inputs == {"albedo": 84, "indirect": 76, "radiance": 73}
    outputs = {name: getattr(texture, name).layers[-1].out_features for name in ("albedo", "metallic", "roughness")}
    assert outputs == {"albedo": 6, "metallic": 2, "roughness": 1}
    assert len(texture.albedo.layers) == 9
    assert len(texture.roughness.layers) == 5
    surface = Surface()
    assert surface.step_length == pytest.approx(0.0050742, abs=1e-7)
    assert [surface.sdf.network.layers[i].weight.shape for i in (0, 2, 4)] == [(128, 35), (128, 128), (48, 128)]


def test_encoding_of_positions():
    texture = SharedTexture(
        1, HeadSettings(width=4, depth=1, material_depth=1, frequencies=2, sh_degrees=1, table_size=4)
    )
    point = torch.tensor([[0.3, -0.2, 0.9]])
    encoded = texture._at(point, torch.zeros(1, 1))[0, 1:]
    expected = torch.cat([point.sin(), point.cos(), (2 * point).sin(), (2 * point).cos()], -1)[0]
    torch.testing.assert_close(encoded, expected)


def test_second_stage_adds_channels_and_leaves_the_first():
    field = small_field()
    o, d = rays(30)
    sections = field.surface.march(o, d)
    found = field.surface.samples(o, d, sections)
    light = field.light.build()
    first = field.texture(found.points, found.feature, found.directions, found.normal)
    second = field.texture(found.points, found.feature, found.directions, found.normal, light)
    assert (first.shape[1], second.shape[1]) == (7, 24)
    assert torch.equal(first, second[:, :7])
    both = field.render(o, d, sections, light=None), field.render(o, d, sections, light=light)
    assert both[1].colours.keys() - both[0].colours.keys() == {"rgb_phys", "specular_rgb_phys"}
    torch.testing.assert_close(both[0].colours["rgb"], both[1].colours["rgb"])


def test_shading_by_the_formula():
    field = small_field()
    count = 40
    generator = torch.Generator().manual_seed(3)
    normals, view = (F.normalize(torch.randn(count, 3, generator=generator), dim=-1) for _ in range(2))
    normals = normals * (normals * view).sum(-1, keepdim=True).sign()
    points, feature = torch.rand(count, 3, generator=generator), torch.randn(count, 8, generator=generator)
    light = field.light.build()
    shaded = named(field.texture(points, feature, -view, normals, light))
    materials = field.texture.materials(points, feature)
    for name in ("albedo", "metallic", "roughness"):
        torch.testing.assert_close(shaded[name], getattr(materials, name))
    albedo, metallic, roughness = materials
    torch.testing.assert_close(shaded["diffuse_phys"], (1 - metallic) * albedo * light.diffuse_light(normals))
    mirror = 2 * (normals * view).sum(-1, keepdim=True) * normals - view
    torch.testing.assert_close(shaded["specular_light"], light.specular_light(mirror, roughness))
    torch.testing.assert_close(shaded["specular_phys"], shaded["reflectance"] * shaded["specular_light"])
    with torch.no_grad():
        table = field.texture.table
        table[..., 0], table[..., 1] = 1.0, 0.0  # a surface that reflects F0
    at_normal = named(field.texture(points, feature, -view, normals, light))["reflectance"]
    torch.testing.assert_close(at_normal, 0.04 * (1 - metallic) + metallic * albedo)


@pytest.fixture(scope="module")
def forced():
    """A rendering in which mirror rays see distant light alone, one in which they see the object, and the free one."""
    field = small_field()
    o, d = rays(40, spread=1.0)
    sections, light = field.surface.march(o, d), field.light.build()
    free = field.render(o, d, sections, light=light)
    count = int((free.maps["opacity"] > 0.5).sum())
    assert 5 < count < 40

    def render(clear, **options):
        occlusion = torch.full((count, 1), clear), torch.full((count, 1), 0.3)
        return field.render(o, d, sections, light=light, occlusion=occlusion, **options)

    return field, (o, d, sections, light), render


def test_with_clear_mirror_rays_renderings_are_direct(forced):
    field, (o, d, sections, light), render = forced
    found = field.surface.samples(o, d, sections)
    direct = named(found.sum(field.texture(found.points, found.feature, found.directions, found.normal, light)))
    for name in ("specular", "specular_phys", "specular_light"):
        torch.testing.assert_close(render(1.0).maps[name], direct[name])


def test_with_blocked_mirror_rays_the_indirect_network_answers(forced):
    field, (o, d, *_), render = forced
    maps = render(0.0).maps
    chosen = maps["opacity"][:, 0] > 0.5
    normal, direction = maps["normal"][chosen], d[chosen]
    points = o[chosen] + maps["depth"][chosen] * direction
    mirror = direction - 2 * (direction * normal).sum(-1, keepdim=True) * normal
    expected = field.texture.indirect_light(field.surface.sdf.features(points), mirror, normal)
    for name in ("specular", "specular_phys"):
        torch.testing.assert_close(maps[name][chosen], expected, rtol=1e-4, atol=1e-5)


def test_without_mirror_rays_renderings_are_direct(forced):
    field, (o, d, sections, light), render = forced
    direct = render(1.0).maps
    field.indirect.predict = False
    for relighting in (False, True):
        shown = field.render(o, d, sections, light=light, relighting=relighting)
        for name in ("specular", "specular_phys", "specular_light"):
            torch.testing.assert_close(shown.maps[name], direct[name])
        assert torch.equal(shown.visibility, torch.ones(len(o), 1))
    field.indirect.predict = True


def test_relighting_shades_a_second_surface_for_smooth_pixels_only(forced):
    field, _, render = forced
    field.indirect.relighting_threshold = 0.0  # no pixel is that smooth
    rough = render(0.0, relighting=True).maps
    torch.testing.assert_close(rough["specular_light"], render(1.0).maps["specular_light"])
    torch.testing.assert_close(rough["specular_phys"], rough["reflectance"] * rough["specular_light"])
    field.indirect.relighting_threshold = 1.0
    maps = render(0.0, relighting=True).maps
    chosen = maps["opacity"][:, 0] > 0.5
    assert not torch.allclose(maps["specular_light"][chosen], rough["specular_light"][chosen])
    torch.testing.assert_close(maps["specular_light"][~chosen], rough["specular_light"][~chosen])
    field.indirect.relighting_threshold = 0.3


def test_second_surface_looks_along_the_ray_or_in_the_mirror_direction(forced):
    field, (*_, light), _ = forced
    points = F.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(5)), dim=-1) * 0.5
    directions = -points + 0.3
    found = field.surface.sdf(points)
    normals = F.normalize(found.gradient, dim=-1)
    materials = field.texture.materials(points, found.feature)
    shades = {}
    for lookup in ("ray", "mirror"):
        field.indirect.secondary_lookup = lookup
        seen = (
            directions if lookup == "ray" else directions - 2 * (directions * normals).sum(-1, keepdim=True) * normals
        )
        diffuse, reflectance, incoming = field.texture.shade(materials, normals, -directions, seen, light)
        shades[lookup] = field.second_surface(points, directions, light)
        torch.testing.assert_close(shades[lookup], diffuse + reflectance * incoming, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(*shades.values())
    field.indirect.secondary_lookup = "ray"


def test_rays_that_meet_nothing():
    field = small_field()
    away = torch.tensor([[3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    shown = field(*away, light=field.light.build(), background=torch.tensor([0.2, 0.3, 0.4]))
    assert len(shown.samples.sdf) == 0
    torch.testing.assert_close(shown.colours["rgb_phys"][0], linear_to_srgb(torch.tensor([0.2, 0.3, 0.4])))
    terms = loss_terms(shown.samples, shown.colours, torch.zeros(1, 3), torch.zeros(1))
    assert all(bool(value.isfinite()) for value in terms.values())
    sum(terms.values()).backward()


def test_losses_by_hand():
    field = small_field()
    o, d = rays(12)
    d[0] = -d[0]  # this one misses
    shown = field(o, d, light=field.light.build(), tangents=torch.Generator().manual_seed(0))
    found, target = shown.samples, torch.full((12, 3), 0.25)
    mask = (torch.arange(12) % 2).float()
    terms = loss_terms(found, shown.colours, target, mask, curvature=shown.curvature)
    opacity = shown.maps["opacity"][:, 0]
    valid = opacity > 0
    assert valid.tolist() == [False] + [True] * 11
    gradient = found.gradient
    close = torch.testing.assert_close
    close(terms["rgb_mse"], ((shown.colours["rgb"] - target)[valid] ** 2).mean())
    close(terms["rgb_phys_l1"], (shown.colours["rgb_phys"] - target)[valid].abs().mean())
    close(terms["eikonal"], ((gradient.norm(dim=1) - 1) ** 2).mean())
    close(terms["sparsity"], (-found.sdf.abs()).exp().mean())
    clamped = opacity.clamp(1e-3, 1 - 1e-3)
    close(terms["mask"], -(mask * clamped.log() + (1 - mask) * (1 - clamped).log()).mean())
    close(terms["opaque"], -(clamped * clamped.log() + (1 - clamped) * (1 - clamped).log()).mean())
    facing = (found.directions * found.normal).sum(1).clamp(min=0) * found.weights
    close(terms["normal_orientation"], facing.sum() / 12)
    close(terms["curvature"], shown.curvature.mean())
    apart = shown.colours["specular_rgb"] - shown.colours["specular_rgb_phys"]
    close(terms["emitter_distillation"], (apart[valid] ** 2).mean())


def test_weights_that_rise():
    assert [weight_at((10, 0.0, 2.0, 20), step) for step in (0, 10, 15, 20, 99)] == [0, 0, 1, 2, 2]
    with pytest.raises(ValueError, match="one number, or start step"):
        weight_at((1.0, 2.0), 0)


def test_neus_renders():
    torch.manual_seed(0)
    field = NeuS(GeometrySettings(**{**vars(GEOMETRY), "gradient": "analytic"}), HEADS)
    field.surface.set_step(100)
    o, d = rays(10)
    shown = field(o, d)
    assert bool((shown.maps["opacity"] > 0.5).any())
    met = shown.maps["opacity"][:, 0] > 0.5
    torch.testing.assert_close(shown.maps["normal"][met].norm(dim=1), torch.ones(int(met.sum())))
    lit = field.surface.march(o, d)
    assert len(lit.ray_id) < len(shown.samples.sdf)  # it also looks where no light comes
    torch.testing.assert_close(field.render(o, d, lit).colours["rgb"], shown.colours["rgb"], rtol=0, atol=2e-4)
    torch.nn.functional.mse_loss(shown.colours["rgb"], torch.zeros(10, 3)).backward()
    assert float(field.surface.sdf.network.layers[0].bias.grad.abs().sum()) > 0


def ball(o, d):
    """sRGB (N, 3) and mask (N,) of a shaded ball of radius 0.5 on white."""
    middle = -(o * d).sum(-1, keepdim=True)
    nearest = o + middle * d
    squared = 0.25 - (nearest**2).sum(-1, keepdim=True)
    hit = squared[:, 0] > 0
    normal = (nearest - squared.clamp(min=0).sqrt() * d) / 0.5
    return torch.where(hit[:, None], 0.5 + 0.3 * normal * torch.tensor([1.0, 0.5, -0.7]), 1.0), hit.float()


@pytest.mark.slow
def test_it_learns_a_ball_in_two_stages():
    field = small_field(4)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.005, eps=1e-12)
    rates = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / 400))
    losses = []
    for step in range(400):
        physical = step >= 300
        field.surface.set_step(step)
        generator = torch.Generator().manual_seed(step)
        field.surface.update_occupancy(step, generator)
        o, d = rays(64, step + 1, spread=0.55)
        target, mask = ball(o, d)
        light = field.light.build() if physical else None
        shown = field(o, d, light=light, jitter=torch.rand(64, generator=generator))
        wanted = ("rgb_mse", "eikonal", "mask", *(("rgb_phys_mse",) if physical else ()))
        terms = loss_terms(shown.samples, shown.colours, target, mask, wanted=wanted)
        loss = 10 * terms["rgb_mse"] + 0.05 * terms["eikonal"] + 0.1 * terms["mask"] + 10 * terms.get("rgb_phys_mse", 0)
        optimizer.zero_grad()
        loss.backward()
        if step == 299:
            assert field.light.base.grad is None
        if step == 399:
            for parameter in (
                field.light.base,
                *(getattr(field.texture, n).layers[0].weight for n in ("albedo", "metallic", "roughness")),
            ):
                assert bool(parameter.grad.isfinite().all())
                assert float(parameter.grad.abs().sum()) > 0
        optimizer.step()
        rates.step()
        losses.append(float(terms["rgb_mse"].detach()))
    means = [sum(losses[i : i + 50]) / 50 for i in range(0, 300, 50)]
    assert means[-1] < 0.5 * means[0]
    o, d = rays(1000, 9999, spread=0.55)
    field.surface.set_step(400)
    with torch.no_grad():
        shown = field(o, d, light=field.light.build())
    error = F.mse_loss(shown.colours["rgb"], ball(o, d)[0])
    assert -10 * math.log10(float(error)) > 25
