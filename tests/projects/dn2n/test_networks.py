"""IBRNet's networks and rendering against recorded numbers, formulas, and plain loops."""

import numpy as np
import pytest
import torch

from perception.engine.errors import UserError
from projects.dn2n.aggregation import IBRNet
from projects.dn2n.converter import network_weights, renderer_of, to_authors, to_perception
from projects.dn2n.features import ResUNet
from projects.dn2n.losses import (
    masked_mse,
    neighbour_loss,
    overlap_mask,
    self_view_loss,
    to_neighbour,
)
from projects.dn2n.projection import camera_rays, camera_vector, gather, project
from projects.dn2n.rendering import Rays, Renderer, composite, finer_depths, sample_depths, sample_pdf
from tests.conftest import REPOSITORY
from tests.projects.dn2n import planes

RECORDED = REPOSITORY / "tests/data/reference/dn2n"


def small_renderer(channels: int = 8) -> Renderer:
    torch.manual_seed(0)
    return Renderer(
        ResUNet(channels, channels, (8, 8, 8), (1, 1, 1)), IBRNet(channels, 12), IBRNet(channels, 20), min_seen=4
    )


def two_views(target: int = 5, chosen=(3, 4, 6, 8)):
    cameras = planes.cameras()
    images = torch.stack([planes.render(camera)[0] for camera in cameras])
    rays = Rays(*camera_rays(cameras[target], planes.pixels()[::37]), cameras[target], planes.NEAR, planes.FAR)
    return rays, images[list(chosen)], cameras[list(chosen)]


def test_aggregation_is_that_of_the_authors():
    recorded = torch.load(RECORDED / "aggregation.pt", weights_only=True)
    inputs, network = recorded["inputs"], IBRNet(32, 16)
    network.load_state_dict(recorded["state_dict"])
    features = inputs["rgb_feat"].clone().requires_grad_()
    out = network(features, inputs["ray_diff"], inputs["mask"])
    torch.testing.assert_close(out, recorded["outputs"]["out"], rtol=0, atol=1e-6)
    (out * inputs["cotangent"]).sum().backward()
    torch.testing.assert_close(features.grad[:1], recorded["grads"]["rgb_feat"], rtol=1e-4, atol=1e-6)
    own = dict(network.named_parameters())
    for name, expected in recorded["grads"]["params"].items():
        torch.testing.assert_close(own[name].grad, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_losses_hold_their_recorded_values():
    recorded = torch.load(RECORDED / "losses_filter.pt", weights_only=True)
    given, expected = recorded["inputs"], recorded["outputs"]
    found = {
        "L_rgb_a": masked_mse(given["Ca"], given["gt"], given["mask_a"]),
        "L_rgb_b": masked_mse(given["Cb"], given["gt"], given["mask_b"]),
        "L_self": masked_mse(given["Ca"], given["Cb"], given["mask_a"] * given["mask_b"]),
    }
    warped = to_neighbour(given["ray_o"], given["ray_d"], given["depth"], given["neighbour_camera"])
    found["uv_neighbour"], found["z_neighbour"] = warped.pixels, warped.depth
    found["M"] = overlap_mask(warped, given["neighbour_depth"]).float()
    found["L_nbr"] = neighbour_loss(given["Ct"], given["Cn"], warped, given["neighbour_depth"])
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_feature_network_has_the_published_size():
    network = ResUNet()
    assert sum(weight.numel() for weight in network.parameters()) == 8_917_120
    names = network.state_dict().keys()
    assert {"layer3.5.bn2.weight", "layer1.0.downsample.1.bias", "upconv3.conv.conv.weight", "iconv2.bn.bias"} <= names
    coarse, fine = network(torch.rand(2, 3, 60, 76))
    assert coarse.shape == fine.shape == (2, 32, 16, 20)


@pytest.mark.parametrize("size", [(17, 17), (53, 77), (66, 99)])
def test_any_size_of_image(size):
    network = ResUNet(4, 4, (8, 8, 8), (1, 1, 1))
    images = torch.rand(2, 3, *size)
    together = network(images)[0]
    assert abs(together.shape[2] - size[0] / 4) < 4
    torch.testing.assert_close(together[:1], network(images[:1])[0])  # each image by itself


def test_images_that_are_too_small_are_named():
    with pytest.raises(ValueError, match="16 x 40 pixels are too small"):
        ResUNet(4, 4, (8, 8, 8), (1, 1, 1))(torch.rand(1, 3, 40, 16))


def test_projection_hits_the_pixels_that_rays_came_from():
    cameras = planes.cameras(3)
    origins, directions = camera_rays(cameras[1], planes.pixels())
    points = origins + 3.1 * directions
    seen = project(points, cameras)
    torch.testing.assert_close(seen.pixels[1], planes.pixels(), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.depth[1], torch.full((len(points),), 3.1))


def test_mask_is_exact_at_the_border_and_behind():
    camera = camera_vector(10, 20, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), torch.eye(4))
    points = torch.tensor(
        [[0.0, 0, 1], [19, 9, 1], [19.001, 9, 1], [0, 9.001, 1], [-0.001, 3, 1], [-5.0, -5, -1], [5.0, 5, 0]]
    )
    assert project(points, camera[None]).mask[0].tolist() == [True, True, False, False, False, False, False]


def test_a_view_that_looks_away_gives_nothing():
    rays, images, cameras = two_views()
    turned = cameras.clone()
    turned[0, 18:34] = (turned[0, 18:34].view(4, 4) * torch.tensor([-1.0, 1, -1, 1])).flatten()
    points = rays.origins[:, None] + rays.directions[:, None] * torch.linspace(2, 5, 4)[:, None]
    found = gather(points, rays.camera, images, turned, images)
    assert not bool(found.mask[:, :, 0].any())
    assert bool(found.mask[:, :, 1].any())


def test_order_of_the_sources_does_not_matter():
    renderer = small_renderer()
    rays, images, cameras = two_views()
    one = renderer(rays, renderer.sources(images, cameras)).best
    order = [2, 0, 3, 1]
    other = renderer(rays, renderer.sources(images[order], cameras[order])).best
    torch.testing.assert_close(one.rgb, other.rgb, rtol=0, atol=1e-5)
    assert one.rgb.shape == (len(rays.origins), 3)


def test_sources_of_one_colour_give_that_colour():
    renderer = small_renderer()
    rays, images, cameras = two_views()
    colour = torch.tensor([0.2, 0.5, 0.8])
    flat = colour[:, None, None].expand_as(images[0]).repeat(4, 1, 1, 1)
    found = renderer(rays, renderer.sources(flat, cameras)).coarse
    # samples that no view sees show zeros: their density is 0
    torch.testing.assert_close(found.rgb, found.accumulation[:, None] * colour, rtol=0, atol=1e-6)


def test_derivative_of_the_aggregation():
    network = IBRNet(5, 4).double()
    torch.manual_seed(1)
    features = torch.rand(2, 4, 3, 8, dtype=torch.float64, requires_grad=True)
    differences = torch.rand(2, 4, 3, 4, dtype=torch.float64)
    mask = torch.ones(2, 4, 3, 1, dtype=torch.float64)
    mask[0, 1, 2], mask[1, 3] = 0, 0
    assert torch.autograd.gradcheck(lambda x: network(x, differences, mask), (features,), atol=1e-5)


def test_a_network_is_tied_to_its_number_of_samples():
    network = IBRNet(5, 4)
    inputs = torch.rand(2, 6, 3, 8), torch.rand(2, 6, 3, 4), torch.ones(2, 6, 3, 1)
    with pytest.raises(ValueError, match="6 samples for a network of 4"):
        network(*inputs)
    network.set_samples(6)
    assert network(*inputs).shape == (2, 6, 4)
    assert "pos_encoding" not in network.state_dict()


def test_depths_are_even_in_their_inverse():
    z = sample_depths(2.0, torch.tensor([4.0, 8.0]), 2, 5, like=torch.zeros(1))
    torch.testing.assert_close(1 / z[1], torch.linspace(1 / 2, 1 / 8, 5))
    moved = sample_depths(2.0, 8.0, 2, 5, generator=torch.Generator().manual_seed(0), like=torch.zeros(1))
    assert bool((moved.diff(dim=1) > 0).all())
    assert float(moved.min()) >= 2
    assert float(moved.max()) <= 8 + 1e-5


def test_finer_depths_by_a_plain_loop():
    random = torch.Generator().manual_seed(3)
    bins, weights = torch.rand(4, 9, generator=random).sort(1)[0], torch.rand(4, 8, generator=random)
    weights[2, 3:6] = 0
    before = weights.clone()
    found = sample_pdf(bins, weights, 7)
    assert torch.equal(weights, before)  # a published implementation changes them
    for ray in range(4):
        pdf = (weights[ray] + 1e-5).double() / (weights[ray] + 1e-5).double().sum()
        cdf = np.concatenate([[0], np.cumsum(pdf.numpy())])
        for number, u in enumerate(np.linspace(0, 1, 7)):
            above = sum(u >= edge for edge in cdf[:-1])
            below = max(above - 1, 0)
            span = cdf[above] - cdf[below]
            share = (u - cdf[below]) / (span if span >= 1e-5 else 1)
            expected = bins[ray, below] + share * (bins[ray, above] - bins[ray, below])
            assert float(found[ray, number]) == pytest.approx(float(expected), abs=2e-5)
    z = sample_depths(2.0, 6.0, 4, 10, like=bins)
    finer = finer_depths(z, torch.rand(4, 10, generator=random), 6)
    assert finer.shape == (4, 16)
    assert bool((finer.diff(dim=1) >= 0).all())


def test_compositing_takes_no_lengths():
    raw = torch.tensor([[[1.0, 0, 0, 0.5], [0, 1, 0, 2.0], [0, 0, 1, 1.0]]])
    z, mask = torch.tensor([[1.0, 2.0, 7.0]]), torch.ones(1, 3, 2, 1)
    found = composite(raw, z, mask, min_seen=2)
    a = [1 - np.exp(-0.5), 1 - np.exp(-2.0), 1 - np.exp(-1.0)]
    weights = [a[0], (1 - a[0]) * a[1], (1 - a[0]) * (1 - a[1]) * a[2]]
    np.testing.assert_allclose(found.rgb[0], weights, atol=1e-6)
    assert float(found.depth) == pytest.approx(weights[0] + 2 * weights[1] + 7 * weights[2], abs=1e-5)
    assert found.mask.tolist() == [True]
    assert composite(raw, z, mask, min_seen=3).mask.tolist() == [False]
    assert composite(raw, z, mask[:, :, :1], min_seen=0).mask.tolist() == [False]  # one view is not enough


def test_identical_source_sets_agree():
    renderer = small_renderer()
    rays, images, cameras = two_views()
    sets = [renderer.sources(images, cameras) for _ in range(2)]
    a, b = (renderer(rays, part, generator=torch.Generator().manual_seed(4)).best for part in sets)
    assert float(self_view_loss(a, b).detach()) == 0
    other = renderer.sources((images * 0.8).clamp(0, 1), cameras)
    loss = self_view_loss(a, renderer(rays, other, generator=torch.Generator().manual_seed(4)).best)
    loss.backward()
    assert float(loss.detach()) > 0
    assert float(renderer.net_fine.rgb_fc[0].weight.grad.abs().sum()) > 0


def test_depths_that_differ_by_a_tenth_are_not_compared():
    cameras = planes.cameras()
    _, depth = planes.render(cameras[5])
    origins, directions = camera_rays(cameras[5], planes.pixels())
    warped = to_neighbour(origins, directions, depth.flatten(), cameras[6])
    exact = warped.depth.clone()
    assert float(overlap_mask(warped, exact).float().mean()) > 0.9
    colours = torch.rand(len(exact), 3, requires_grad=True)
    assert not bool(overlap_mask(warped, 1.1 * exact).any())
    loss = neighbour_loss(colours, torch.zeros_like(colours), warped, 1.1 * exact)
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(neighbour_loss(colours.detach(), torch.zeros_like(colours), warped, exact)) > 0


def authors_file() -> dict:
    renderer = small_renderer()
    parts = {name: dict(getattr(renderer, name).state_dict()) for name in ("net_coarse", "net_fine", "feature_net")}
    return {**parts, "optimizer": {}, "scheduler": {}}


def test_published_files_there_and_back():
    published = authors_file()
    converted = to_perception(published)
    assert converted.unmatched == []
    back = to_authors(converted.checkpoint).checkpoint
    for network in ("net_coarse", "net_fine", "feature_net"):
        assert back[network].keys() == published[network].keys()
        assert all(torch.equal(value, published[network][name]) for name, value in back[network].items())
    renderer = renderer_of(network_weights(converted.checkpoint), coarse_samples=12, fine_samples=8)
    rays, images, cameras = two_views()
    expected = small_renderer()
    assert torch.equal(
        renderer(rays, renderer.sources(images, cameras)).coarse.rgb,
        expected(rays, expected.sources(images, cameras)).coarse.rgb,
    )


def test_coarse_and_fine_features_may_differ_in_number():
    feature_net = ResUNet(4, 6, (8, 8, 8), (1, 1, 1))
    renderer = Renderer(feature_net, IBRNet(4, 12), IBRNet(6, 20))
    published = {name: dict(getattr(renderer, name).state_dict()) for name in ("net_coarse", "net_fine", "feature_net")}
    loaded = renderer_of(network_weights(to_perception(published).checkpoint), coarse_samples=12, fine_samples=8)
    assert (loaded.net_coarse.in_feat_ch, loaded.net_fine.in_feat_ch) == (4, 6)
    rays, images, cameras = two_views()
    found, expected = (net(rays, net.sources(images, cameras)).fine.rgb for net in (loaded, renderer))
    assert torch.equal(found, expected)


def test_other_files_are_refused():
    published = authors_file()
    del published["net_fine"]["rgb_fc.4.bias"]
    with pytest.raises(UserError, match=r"rgb_fc\.4\.bias"):
        to_perception(published)
    with pytest.raises(UserError, match="lacks feature_net"):
        to_perception({"net_coarse": {}})
    with pytest.raises(UserError, match="has no weight"):
        to_authors({"state_dict": {"x": torch.zeros(1)}})
