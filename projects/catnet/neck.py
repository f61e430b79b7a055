"""DenseFPN and SCP, registered with mmdet under the authors' names.

In a config the neck is a list of both, which mmengine builds as one after the other (``neck.0``, ``neck.1``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule

from . import dense_fpn, scp


@MODELS.register_module()
class ContextAggregation(scp.ContextAggregation):
    """:class:`projects.catnet.scp.ContextAggregation` with mmcv's convolutions.

    Args:
        in_channels, reduction: as there.
        conv_cfg: of every convolution.
    """

    def __init__(self, in_channels: int, reduction: int = 1, conv_cfg: dict | None = None):
        super().__init__(in_channels, reduction, partial(ConvModule, conv_cfg=conv_cfg, act_cfg=None))


@MODELS.register_module()
class DenseFPN(dense_fpn.DenseFPN, BaseModule):
    """:class:`projects.catnet.dense_fpn.DenseFPN` with mmcv's convolutions.

    Args:
        in_channels, out_channels, num_outs, start_level, end_level, stack_times, reduction: as there.
        conv_cfg, norm_cfg, act_cfg: of every convolution. Published: SyncBN and no activation.
        init_cfg: of MMEngine.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        stack_times: int = 1,
        reduction: int = 2,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = dict(type="Caffe2Xavier", layer="Conv2d")
        super().__init__(
            in_channels,
            out_channels,
            num_outs,
            start_level,
            end_level,
            stack_times,
            reduction,
            conv_block=partial(ConvModule, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg),
        )
        self.init_cfg = copy.deepcopy(init_cfg)


@MODELS.register_module()
class SCP(scp.SCP, BaseModule):
    """:class:`projects.catnet.scp.SCP` with blocks from the registry.

    Args:
        in_channels, num_levels: as there.
        block_cfg: of the blocks, which get ``in_channels``.
        init_cfg: of MMEngine. By default nothing is done beyond what the blocks do themselves: they start as the
            identity.
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int,
        block_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        if block_cfg is None:
            block_cfg = dict(type="ContextAggregation")
        super().__init__(in_channels, num_levels, lambda channels: MODELS.build({**block_cfg, "in_channels": channels}))
        self.init_cfg = copy.deepcopy(init_cfg)
