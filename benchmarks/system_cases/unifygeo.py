"""UnifyGeo: a pair's forward and all its losses."""

import torch

from projects.unifygeo.losses import map_cross_entropy, matching_losses, rerank_loss, retrieval_loss
from projects.unifygeo.network import UnifyGeoNet
from projects.unifygeo.targets import target_maps
from system_cases import Core

SMALL = dict(
    view=dict(encoder_channels=(12, 24, 48), encoder_depths=(1, 1, 2), channels=96),
    decoder=dict(channels=(96, 48, 24, 12), ground_channels=(16, 8, 4, 2), ground_size=(3, 6), head_channels=(12, 8)),
)


def core(large: bool) -> Core:
    network = UnifyGeoNet() if large else UnifyGeoNet(**SMALL)
    batch, side = (16, 384) if large else (2, 96)
    offsets = torch.rand(batch, 2) * 200 - 100
    return Core(network, (torch.randn(batch, 3, side, 2 * side), torch.randn(batch, 3, side, side), offsets), _loss)


def _loss(network, ground, satellite, offsets):
    output = network(ground, satellite)
    targets = target_maps(offsets.detach(), satellite.shape[-1])
    return (
        retrieval_loss(output.ground, output.satellite, network.logit_scale.exp())
        + map_cross_entropy(output.location.logits, targets)
        + matching_losses(output.location.scores, targets, range(4), 0.1, 1e-2)
        + rerank_loss(output.rerank_descriptors, output.rerank_maps, network.rerank_logit_scale.exp())
    )
