"""Two textured planes seen by cameras on an arc, rendered from formulas."""

import torch

from projects.dn2n.projection import camera_rays, camera_vector, split_camera

HEIGHT, WIDTH, FOCAL = 48, 64, 60.0
NEAR, FAR = 2.0, 5.0
FRONT, BACK, HALF = 2.5, 4.0, (0.45, 0.35)


def cameras(count: int = 12) -> torch.Tensor:
    """Camera vectors (count, 34) on an arc 0.6 wide that look at the middle of the scene."""
    found = []
    intrinsics = torch.tensor([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    for x in torch.linspace(-0.3, 0.3, count):
        place = torch.tensor([float(x), 0.05 * float(torch.cos(9 * x)), 0.1 * float(x) ** 2])
        forward = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 3.2]) - place, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward), dim=0)
        pose = torch.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, torch.linalg.cross(forward, right), forward
        pose[:3, 3] = place
        found.append(camera_vector(HEIGHT, WIDTH, intrinsics, pose))
    return torch.stack(found)


def pixels() -> torch.Tensor:
    """All pixels (H * W, 2), row by row."""
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return torch.stack([u, v], -1).reshape(-1, 2).float()


def render(camera: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (3, H, W) and depth (H, W) of a camera."""
    origins, directions = camera_rays(camera, pixels())
    axis = split_camera(camera)[2][:3, 2]
    colour, depth = None, None
    for plane in (BACK, FRONT):
        share = (plane - origins[:, 2]) / directions[:, 2]
        points = origins + share[:, None] * directions
        seen = torch.stack([wave(points, plane, phase) for phase in (0.0, 1.3, 2.9)], -1)
        along = (points - origins) @ axis
        if colour is None:
            colour, depth = seen, along
        else:
            inside = (points[:, 0].abs() < HALF[0]) & (points[:, 1].abs() < HALF[1])
            colour = torch.where(inside[:, None], seen, colour)
            depth = torch.where(inside, along, depth)
    return colour.T.reshape(3, HEIGHT, WIDTH), depth.reshape(HEIGHT, WIDTH)


def wave(points: torch.Tensor, plane: float, phase: float) -> torch.Tensor:
    """Values in [0, 1] at points of a plane."""
    x, y = points[:, 0], points[:, 1]
    fast = 9.0 if plane == FRONT else 5.0
    return 0.5 + 0.25 * torch.sin(fast * x + phase) + 0.24 * torch.cos(fast * y + 2 * phase + plane)
