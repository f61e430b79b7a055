"""DN2N: rays rendered from source views, features and all. The small one is without the fine network, whose samples
jump where rounding does."""

import torch

from projects.dn2n.aggregation import IBRNet
from projects.dn2n.features import ResUNet
from projects.dn2n.projection import camera_rays, camera_vector
from projects.dn2n.rendering import Rays, Renderer
from system_cases import Core


def core(large: bool) -> Core:
    views, height, width, rays = (10, 378, 504, 500) if large else (3, 24, 32, 12)
    if large:
        renderer = Renderer(ResUNet(), IBRNet(32, 64), IBRNet(32, 128))
    else:
        renderer = Renderer(ResUNet(4, 4, (8, 8, 8), (1, 1, 1)), IBRNet(4, 8), None)
    for network in (renderer.net_coarse, renderer.net_fine):
        if network is not None:  # dense from the start, or no gradient passes
            torch.nn.init.ones_(network.out_geometry_fc[2].bias)
    intrinsics = torch.tensor([[1.2 * width, 0, width / 2], [0, 1.2 * width, height / 2], [0, 0, 1]])
    poses = torch.eye(4).repeat(views + 1, 1, 1)
    poses[:, :2, 3] = 0.3 * torch.randn(views + 1, 2)
    cameras = camera_vector(height, width, intrinsics.expand(views + 1, 3, 3), poses)
    pixels = torch.rand(rays, 2) * torch.tensor([width - 1.0, height - 1.0])
    origins, directions = camera_rays(cameras[0], pixels)
    return Core(renderer, (torch.rand(views, 3, height, width), cameras, origins.clone(), directions.clone()), _loss)


def _loss(renderer, images, cameras, origins, directions):
    cameras = cameras.detach()
    rays = Rays(origins.detach(), directions.detach(), cameras[0], 2.0, 6.0)
    return (renderer(rays, renderer.sources(images, cameras[1:])).best.rgb - 0.5).square().mean()
