"""The closed form of midpoint decoding against mmrotate's, which searches the smallest rectangle."""

import math

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.models.task_modules.coders import MidpointOffsetCoder
from mmrotate.registry import TASK_UTILS
from mmrotate.structures.bbox import RotatedBoxes, rbox2qbox

from perception.detection.midpoint_offsets import ClosedFormMidpointOffsetCoder, decode_midpoints

STDS = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5)


def random_inputs(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 900
    size = 8 + torch.rand(count, 2, generator=generator) * 300
    deltas = torch.randn(count, 6, generator=generator) * torch.tensor([0.3, 0.3, 0.4, 0.4, 0.7, 0.7])
    return torch.cat([corner, corner + size], 1), deltas


def same_rectangles(one, other, atol):
    """Whether boxes cover the same area: every corner of one is a corner of the other."""
    distance = torch.cdist(rbox2qbox(one).view(-1, 4, 2), rbox2qbox(other).view(-1, 4, 2))
    return distance.amin(2).amax() < atol and distance.amin(1).amax() < atol


@pytest.mark.parametrize("version", ["le90", "le135", "oc"])
def test_it_decodes_like_mmrotate(version):
    anchors, deltas = random_inputs(1000)
    stock = MidpointOffsetCoder(target_stds=STDS, angle_version=version).decode(HorizontalBoxes(anchors), deltas)
    coder = TASK_UTILS.build(
        dict(type="mmrotate.ClosedFormMidpointOffsetCoder", target_stds=STDS, angle_version=version)
    )
    ours = coder.decode(HorizontalBoxes(anchors), deltas)
    assert isinstance(ours, RotatedBoxes)
    assert same_rectangles(ours.tensor, stock.tensor, atol=0.02)
    start, width_longer = {"le90": (-90, True), "le135": (-45, True), "oc": (-90, False)}[version]
    angle = ours.tensor[:, 4].rad2deg()
    assert angle.min() >= start - 1e-3
    assert angle.max() <= start + (180 if width_longer else 90) + 1e-3
    if width_longer:
        assert (ours.tensor[:, 2] >= ours.tensor[:, 3]).all()
    plain = ClosedFormMidpointOffsetCoder(target_stds=STDS, angle_version=version, use_box_type=False)
    assert torch.equal(plain.decode(anchors, deltas), ours.tensor)


def test_it_encodes_like_mmrotate_but_for_almost_upright_boxes():
    generator = torch.Generator().manual_seed(2)
    boxes = torch.rand(500, 5, generator=generator) * torch.tensor([800, 800, 200, 200, math.pi])
    boxes[:, 2:4] += 4
    boxes[:40, 4] = torch.arange(40) % 4 * math.pi / 2 + torch.linspace(-1e-5, 1e-5, 40)  # upright but for rounding
    long_off = boxes[:, 2:4].amax(1) * torch.minimum(boxes[:, 4].sin().abs(), boxes[:, 4].cos().abs()) > 0.1
    short_off = boxes[:, 2:4].amin(1) * torch.minimum(boxes[:, 4].sin().abs(), boxes[:, 4].cos().abs()) > 0.1
    anchors, _ = random_inputs(500)
    stock = MidpointOffsetCoder(target_stds=STDS, angle_version="le90")
    coder = ClosedFormMidpointOffsetCoder(target_stds=STDS, angle_version="le90", use_box_type=False)
    deltas = coder.encode(HorizontalBoxes(anchors), RotatedBoxes(boxes))
    expected = stock.encode(HorizontalBoxes(anchors), RotatedBoxes(boxes))
    assert (long_off & short_off).sum() > 400
    torch.testing.assert_close(deltas[long_off & short_off], expected[long_off & short_off], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(deltas[:40], expected[:40], atol=1e-3, rtol=1e-4)
    near = deltas[:, 2:4].abs().amax(1) < math.log(1000 / 16)
    assert near.sum() > 450
    assert same_rectangles(coder.decode(anchors, deltas)[near], boxes[near], atol=0.11)


def test_a_box_a_little_off_upright_keeps_its_area():
    box, anchor = torch.tensor([[744.7, 214.2, 58.9, 12.8, 0.0045]]), torch.tensor([[700.0, 200, 780, 230]])
    coder = ClosedFormMidpointOffsetCoder(target_stds=STDS, angle_version="le90", use_box_type=False)
    decoded = coder.decode(anchor, coder.encode(HorizontalBoxes(anchor), RotatedBoxes(box)))
    torch.testing.assert_close(decoded, box, atol=1e-3, rtol=0)
    stock = MidpointOffsetCoder(target_stds=STDS, angle_version="le90")
    theirs = stock.decode(anchor, stock.encode(HorizontalBoxes(anchor), RotatedBoxes(box))).tensor
    assert theirs[0, 3] < 0.1


def test_rectangles_without_area_and_no_rectangles():
    anchors = torch.tensor([[0.0, 0, 40, 30]] * 3)
    # Both corners in the upper right, or in the lower right; then an upright one.
    deltas = torch.tensor([[0, 0, 0, 0, 0.5, -0.5], [0, 0, 0, 0, 9.0, 9.0], [0, 0, 0, 0, -0.5, -0.5]])
    boxes = decode_midpoints(anchors, deltas.float())
    expected = [[20, 15, 50, 0, math.atan2(-30, 40)], [20, 15, 40, 30, 0], [20, 15, 40, 30, 0]]
    boxes[:, 4] = torch.remainder(boxes[:, 4] + 1.5, math.pi) - 1.5  # up to a half turn
    torch.testing.assert_close(boxes, torch.tensor(expected), atol=1e-4, rtol=0)
    coder = ClosedFormMidpointOffsetCoder(angle_version="le90", use_box_type=False)
    assert coder.decode(torch.zeros(0, 4), torch.zeros(0, 6)).shape == (0, 5)
    scaled = decode_midpoints(anchors[:1], torch.tensor([[0, 0, 99.0, -99.0, 0.5, 0.5]]))
    torch.testing.assert_close(scaled[0, 2:4], torch.tensor([40 * 62.5, 30 / 62.5]))
