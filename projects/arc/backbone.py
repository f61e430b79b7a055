"""ResNet with adaptive rotated convolutions, registered with mmdet (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import Bottleneck
from mmdet.registry import MODELS
from torch import nn

from perception.engine.convert import rename
from perception.engine.errors import UserError

from .conv import AdaptiveRotatedConv2d
from .names import classifier_rules, is_plain_resnet

# Blocks of each stage whose 3x3 convolution is replaced: none, all, all, all ("xFFF").
PUBLISHED_REPLACE = ((), None, None, None)


@MODELS.register_module()
class ARCResNet(ResNet):
    """ResNet-50/101/152 whose bottlenecks, in given stages, have an :class:`AdaptiveRotatedConv2d` in the middle.

    The authors' pre-trained backbones can be named in ``init_cfg`` as they are: their keys are read as ours. Whole
    detectors have to be converted, since more than names differs.

    Args:
        replace: for each stage the numbers of the blocks to replace; ``None`` for all of a stage. (The released configs
            give them as strings, which is understood as well.)
        kernel_number: n of every replaced convolution.
        zero_init_residual: start the last normalisation of each block at 0.
        **kwargs: of :class:`mmdet.models.ResNet`.

    Raises:
        ValueError: the depth has no bottlenecks, or a named block does not exist.
    """

    def __init__(
        self,
        depth: int,
        *,
        replace: Sequence[Sequence[int | str] | None] = PUBLISHED_REPLACE,
        kernel_number: int = 4,
        zero_init_residual: bool = True,
        **kwargs,
    ):
        if depth not in self.arch_settings or self.arch_settings[depth][0] is not Bottleneck:
            raise ValueError(f"ARCResNet needs bottlenecks, which a depth of {depth} does not have: use 50, 101 or 152")
        super().__init__(depth, zero_init_residual=zero_init_residual, **kwargs)
        if len(replace) < self.num_stages:
            raise ValueError(f"replace must name blocks of {self.num_stages} stages, got {len(replace)}")
        for stage, (name, chosen) in enumerate(zip(self.res_layers, replace)):
            blocks = getattr(self, name)
            numbers = range(len(blocks)) if chosen is None else sorted({int(n) for n in chosen if str(n) != "x"})
            for number in numbers:
                if number not in range(len(blocks)):
                    raise ValueError(f"stage {stage} has blocks 0 to {len(blocks) - 1}, but replace names {number}")
                blocks[number].conv2 = _rotated(blocks[number].conv2, kernel_number)
        self._freeze_stages()
        self.register_load_state_dict_pre_hook(_accept_pretrained)


def _accept_pretrained(module: ARCResNet, state_dict: dict, prefix: str, *_) -> None:
    # Only for a bare backbone: within a detector, the authors' names mean their angles too, and must not be accepted.
    if prefix:
        return
    if is_plain_resnet(state_dict):
        raise UserError(
            "these are weights of a plain ResNet; make a start for ARC from them with "
            "python tools/convert_checkpoint.py arc RESNET.pth data/pretrained/START.pth and name that file"
        )
    if any(".rounting_func." in key for key in state_dict):
        renamed = rename(state_dict, classifier_rules(), to="ours").state
        state_dict.clear()
        state_dict.update(renamed)


def _rotated(conv: nn.Conv2d, kernel_number: int) -> AdaptiveRotatedConv2d:
    return AdaptiveRotatedConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        kernel_number=kernel_number,
    )
