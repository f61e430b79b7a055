"""Rays through pixels, in both camera conventions."""

import pytest
import torch

from perception.geometry.rays import pixel_rays

INTRINSICS = torch.tensor([[50.0, 0, 4.5], [0, 40.0, 3.0], [0, 0, 1]])


def pose() -> torch.Tensor:
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    return torch.cat([rotation, torch.randn(3, 1, dtype=torch.float64)], 1)


@pytest.mark.parametrize("convention", ["opengl", "opencv"])
def test_points_along_a_ray_project_to_its_pixel(convention):
    c2w = pose()
    rays_o, rays_d = pixel_rays(6, 9, INTRINSICS, c2w, convention=convention)
    local = (rays_o + 2.5 * rays_d - c2w[:, 3]) @ c2w[:, :3]
    if convention == "opengl":
        local = local * torch.tensor([1.0, -1, -1])
    pixels = local @ INTRINSICS.double().T
    torch.testing.assert_close(pixels[..., 2], torch.full((6, 9), 2.5, dtype=torch.float64))
    centres = torch.stack(torch.meshgrid(torch.arange(9) + 0.5, torch.arange(6) + 0.5, indexing="xy"), -1)
    torch.testing.assert_close(pixels[..., :2] / pixels[..., 2:], centres.double())


def test_the_two_conventions_are_one_flip_apart():
    c2w = pose()
    flipped = c2w * torch.tensor([1.0, -1, -1, 1])
    first, second = pixel_rays(4, 5, INTRINSICS, c2w), pixel_rays(4, 5, INTRINSICS, flipped, convention="opencv")
    torch.testing.assert_close(first[1], second[1])


def test_impossible_cameras_are_refused():
    with pytest.raises(ValueError, match="focal"):
        pixel_rays(4, 5, INTRINSICS * 0, pose())
    with pytest.raises(ValueError, match="convention"):
        pixel_rays(4, 5, INTRINSICS, pose(), convention="blender")
