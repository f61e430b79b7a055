"""Normalised device coordinates, against a loop, recorded rays and their own inverse."""

import pytest
import torch

from perception.geometry.rays import NDC, pixel_rays
from tests.conftest import REPOSITORY

WIDTH, HEIGHT, FOCAL = 12, 10, 14.0
INTRINSICS = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
SCENE = NDC.of_camera(FOCAL, FOCAL, WIDTH, HEIGHT)


def pose(seed: int) -> torch.Tensor:
    """Near the origin, turned by up to some ten degrees from -z."""
    generator = torch.Generator().manual_seed(seed)
    skew = 0.1 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    rotation = torch.matrix_exp(skew - skew.T)
    return torch.cat([rotation, 0.2 * torch.randn(3, 1, generator=generator, dtype=torch.float64)], 1)


def rays(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return pixel_rays(HEIGHT, WIDTH, INTRINSICS, pose(seed))


def test_rays_are_those_of_the_formulas():
    rays_o, rays_d = rays()
    origins, directions = SCENE.rays(rays_o, rays_d)
    for row, column in ((0, 0), (3, 7), (9, 11)):
        (ox, oy, oz), (dx, dy, dz) = rays_o[row, column].tolist(), rays_d[row, column].tolist()
        t = -(1 + oz) / dz
        ox, oy, oz = ox + t * dx, oy + t * dy, oz + t * dz
        a, b = -2 * FOCAL / WIDTH, -2 * FOCAL / HEIGHT
        assert origins[row, column].tolist() == pytest.approx([a * ox / oz, b * oy / oz, 1 + 2 / oz])
        assert directions[row, column].tolist() == pytest.approx(
            [a * (dx / dz - ox / oz), b * (dy / dz - oy / oz), -2 / oz]
        )


def test_rays_go_through_the_same_points_before_and_after():
    rays_o, rays_d = rays(1)
    start = rays_o - (1 + rays_o[..., 2:]) / rays_d[..., 2:] * rays_d
    origins, directions = SCENE.rays(rays_o, rays_d)
    torch.testing.assert_close(SCENE.points(start), origins)
    for further in (0.1, 1.0, 20.0):
        point = SCENE.points(start + further * rays_d)
        along = (point - origins) / directions
        torch.testing.assert_close(along, along[..., 2:].expand_as(along))  # one parameter for the three axes
        assert bool(((along > 0) & (along < 1)).all())
    far = SCENE.points(start + 1e9 * rays_d)
    torch.testing.assert_close(far, origins + directions, atol=1e-7, rtol=0)


def test_there_and_back():
    world = torch.randn(50, 3, dtype=torch.float64)
    world[:, 2] = -1 - 5 * torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(NDC(1.5, 2.5, 0.7).world(NDC(1.5, 2.5, 0.7).points(world)), world)


def test_the_camera_at_the_origin_fills_the_box():
    rays_o, rays_d = pixel_rays(HEIGHT, WIDTH, INTRINSICS, torch.eye(4, dtype=torch.float64))
    box = SCENE.box([(rays_o, rays_d)])
    half = torch.tensor([1 - 1 / WIDTH, 1 - 1 / HEIGHT, 1.0], dtype=torch.float64)  # pixel centres, half a pixel inside
    torch.testing.assert_close(box, torch.stack([-half, half]))


def test_corner_rays_give_the_box_of_all_rays():
    every = [rays(seed) for seed in range(5)]
    corners = [(o[:: HEIGHT - 1, :: WIDTH - 1], d[:: HEIGHT - 1, :: WIDTH - 1]) for o, d in every]
    assert corners[0][0].shape == (2, 2, 3)
    torch.testing.assert_close(SCENE.box(corners), SCENE.box(every))
    ends = torch.cat([torch.stack([o, o + d]).reshape(-1, 3) for o, d in (SCENE.rays(*pair) for pair in every)])
    torch.testing.assert_close(SCENE.box(every), torch.stack([ends.amin(0), ends.amax(0)]))


def test_recorded_rays():
    """Of the authors' code: pixel centres, viewing directions before the map, its near plane at 1."""
    recorded = torch.load(REPOSITORY / "tests/data/reference/nerf_4k/mpi_encoder.pt", weights_only=True)["inputs"]
    height, width, intrinsics = recorded["H"], recorded["W"], recorded["K"]
    rays_o, rays_d = pixel_rays(height, width, intrinsics, recorded["c2w"])
    viewdirs = torch.nn.functional.normalize(rays_d, dim=-1)
    torch.testing.assert_close(viewdirs.reshape(-1, 3), recorded["viewdirs"], atol=1e-6, rtol=0)
    focal = float(intrinsics[0, 0])
    origins, directions = NDC.of_camera(focal, focal, width, height).rays(rays_o, rays_d)
    torch.testing.assert_close(origins.reshape(-1, 3), recorded["rays_o"], atol=1e-6, rtol=0)
    torch.testing.assert_close(directions.reshape(-1, 3), recorded["rays_d"], atol=1e-6, rtol=0)


def test_parameters_are_those_of_the_points():
    rays_o, rays_d = (part.reshape(-1, 3) for part in rays())
    viewdirs = torch.nn.functional.normalize(rays_d, dim=-1)
    distance = torch.linspace(2, 9, len(rays_o), dtype=rays_o.dtype)
    origins, directions = SCENE.rays(rays_o, rays_d)
    parameter = SCENE.parameter(rays_o, viewdirs, distance)
    expected = SCENE.points(rays_o + viewdirs * distance[:, None])
    torch.testing.assert_close(origins + directions * parameter[:, None], expected)
    assert float(SCENE.parameter(rays_o, viewdirs, distance * 0).max()) == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        NDC(1.0, 0.0)
    with pytest.raises(ValueError, match="at least one ray"):
        SCENE.box([])
