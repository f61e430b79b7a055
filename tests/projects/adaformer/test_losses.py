"""Losses of the trackers against loops over proposals and hand calculations, and that both networks learn with them."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from projects.adaformer.backbone import AdaFormer
from projects.adaformer.losses import (
    MotionTargets,
    SiameseTargets,
    m2track_losses,
    p2b_losses,
    unified_motion_losses,
    unified_siamese_losses,
)
from projects.adaformer.motion import MotionNetwork, MotionOutput, SegPointNet
from projects.adaformer.siamese import SiameseNetwork, SiameseOutput

DOWN = torch.tensor([0.0, 0.0, 1.0])
CAR, PEDESTRIAN = (1.6, 3.9, 1.5), (0.6, 0.8, 1.75)


def siamese(batch=2, proposals=12, seeds=10, points=40):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator)

    boxes = draw(batch, proposals, 5)
    output = SiameseOutput(
        boxes,
        draw(batch, proposals, 3) * 0.4,
        draw(batch, seeds),
        draw(batch, seeds, 3),
        torch.arange(seeds).repeat(batch, 1) * 3,
    )
    targets = SiameseTargets(
        draw(batch, 4) * 0.2, (draw(batch, points) > 0).float(), torch.tensor([CAR, PEDESTRIAN][:batch])
    )
    return output, targets


def test_p2b_losses_against_a_loop():
    output, targets = siamese()
    losses = p2b_losses(output, targets, objectness_reduction="masked")
    objectness, weights, box, positives, vote, votes, seg = 0.0, 0.0, 0.0, 0, 0.0, 0, []
    for b in range(2):
        for p in range(12):
            distance = (output.centres[b, p] - targets.box[b, :3]).norm()
            if distance < 0.3 or distance > 0.6:
                near = float(distance < 0.3)
                score = output.boxes[b, p, 4].sigmoid()
                objectness += -(2 * near * score.log() + (1 - near) * (1 - score).log())
                weights += 1
            if distance < 0.3:
                error = (output.boxes[b, p, :4] - targets.box[b]).abs()
                box += torch.where(error < 1, error**2 / 2, error - 0.5).mean()
                positives += 1
        for s, place in enumerate(output.seeds[b].tolist()):
            on = targets.on_target[b, place]
            seg.append(F.binary_cross_entropy_with_logits(output.targetness[b, s], on))
            if on:
                vote += F.smooth_l1_loss(output.votes[b, s], targets.box[b, :3])
                votes += 1
    assert positives
    assert weights < 24
    assert_close(losses["loss_objectness"], 1.5 * objectness / weights)
    assert_close(losses["loss_box"], 0.2 * box / positives)
    assert_close(losses["loss_vote"], vote / votes)
    assert_close(losses["loss_seg"], 0.2 * torch.stack(seg).mean())


def test_released_objectness_counts_proposals_between_as_far():
    output, targets = siamese()
    loss = p2b_losses(output, targets)["loss_objectness"]
    distance = (output.centres - targets.box[:, None, :3]).norm(dim=-1)
    near = (distance < 0.3).float()
    mean = F.binary_cross_entropy_with_logits(output.boxes[..., 4], near, pos_weight=torch.tensor(2.0))
    assert_close(loss, 1.5 * mean)
    mended = p2b_losses(output, targets, objectness_reduction="masked")
    assert not torch.allclose(loss, mended["loss_objectness"])


def test_unified_losses_do_not_depend_on_the_size_of_the_scene():
    """A target half as large with everything half as far gives the same losses."""
    output, targets = siamese()
    targets.size = torch.tensor([CAR, (1.9, 5.1, 2.2)])
    expected = unified_siamese_losses(output, targets)
    half = torch.tensor([0.5, 0.5, 0.5, 1, 1])
    smaller = SiameseOutput(output.boxes * half, output.centres / 2, output.targetness, output.votes / 2, output.seeds)
    halved = SiameseTargets(targets.box * half[:4], targets.on_target, targets.size / 2)
    for name, value in unified_siamese_losses(smaller, halved).items():
        assert_close(value, expected[name], msg=name, rtol=1e-4, atol=1e-5)


def test_two_nearest_proposals_are_always_good():
    output, targets = siamese(batch=1)
    output.centres += 5  # none is near
    boxes = output.boxes.clone().requires_grad_()
    output.boxes = boxes
    unified_siamese_losses(output, targets)["loss_box"].backward()
    nearest = (output.centres - targets.box[:, None, :3]).norm(dim=-1)[0].topk(2, largest=False).indices
    assert set(boxes.grad[0].abs().sum(-1).nonzero()[:, 0].tolist()) == set(nearest.tolist())


def motion(batch=3, points=20):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(*size, generator=generator)

    output = MotionOutput(
        *(draw(batch, 4) for _ in range(4)), draw(batch, 2), draw(batch, 2, points), draw(batch, points, 9)
    )
    moved = torch.tensor([[0.1, 0.1, 0.0, 0.3], [1.0, 0, 0, 0.1], [0.12, 0.12, 0, 0]])[:batch]
    targets = MotionTargets(
        draw(batch, 4),
        draw(batch, 4),
        moved,
        (draw(batch, points) > 0).long(),
        draw(batch, points, 9).abs(),
        torch.tensor([CAR, CAR, PEDESTRIAN])[:batch],
    )
    return output, targets


def test_m2track_losses_by_hand():
    """The first target moves 0.141 m and is at rest; the second and third (0.170 m) move."""
    output, targets = motion()
    losses = m2track_losses(output, targets)
    errors = [F.smooth_l1_loss(output.motion[i, :3], targets.motion[i, :3]) for i in (1, 2)]
    assert_close(losses["loss_motion_centre"], 2 * torch.stack(errors).mean(), rtol=1e-5, atol=1e-5)
    angles = [F.smooth_l1_loss(output.motion[i, 3].sin(), targets.motion[i, 3].sin()) for i in (1, 2)]
    assert_close(losses["loss_motion_angle"], 10 * torch.stack(angles).mean(), rtol=1e-5, atol=1e-5)
    assert_close(losses["loss_state"], 0.1 * F.cross_entropy(output.state, torch.tensor([0, 1, 1])))
    weights = torch.tensor([0.5, 2.0])[targets.on_target]
    each = F.cross_entropy(output.segmentation, targets.on_target, reduction="none")
    assert_close(losses["loss_seg"], 0.1 * (each * weights).sum() / weights.sum())
    for name, boxes, wanted in (
        ("first", output.first_boxes, targets.box),
        ("previous", output.previous_boxes, targets.previous_box),
        ("box", output.boxes, targets.box),
    ):
        assert_close(losses[f"loss_{name}_centre"], 2 * F.smooth_l1_loss(boxes[:, :3], wanted[:, :3]))
        assert_close(losses[f"loss_{name}_angle"], 10 * F.smooth_l1_loss(boxes[:, 3].sin(), wanted[:, 3].sin()))


def test_m2track_losses_of_fewer_parts():
    """Without a state the motions of all targets count; what the network does not give has no loss."""
    output, targets = motion()
    every = m2track_losses(output, targets)
    output.state = output.boxes = output.previous_boxes = output.box_cloud = None
    losses = m2track_losses(output, targets)
    kept = {"loss_seg", "loss_first_centre", "loss_first_angle"}
    assert set(losses) == {*kept, "loss_motion_centre", "loss_motion_angle"}
    for name in kept:
        assert_close(losses[name], every[name])
    assert_close(losses["loss_motion_centre"], 2 * F.smooth_l1_loss(output.motion[:, :3], targets.motion[:, :3]))
    angle = F.smooth_l1_loss(output.motion[:, 3].sin(), targets.motion[:, 3].sin())
    assert_close(losses["loss_motion_angle"], 10 * angle)


def test_losses_keep_double_precision():
    """In single precision, a count and a millionth more are not told apart as well."""
    output, targets = siamese()
    for holder in (output, targets):
        for name, value in vars(holder).items():
            setattr(holder, name, value.double() if value.is_floating_point() else value)
    for losses in (
        p2b_losses(output, targets),
        p2b_losses(output, targets, objectness_reduction="masked"),
        unified_siamese_losses(output, targets),
    ):
        assert {value.dtype for value in losses.values()} == {torch.float64}
    distance = (output.centres - targets.box[:, None, :3]).norm(dim=-1)
    near, usable = (distance < 0.3).double(), ((distance < 0.3) | (distance > 0.6)).sum().double()
    mean = F.binary_cross_entropy_with_logits(output.boxes[..., 4], near, pos_weight=torch.tensor(2.0).double())
    expected = 1.5 * mean * usable / (usable + 1e-6)
    assert_close(p2b_losses(output, targets)["loss_objectness"], expected, rtol=1e-12, atol=0)


def test_whether_a_target_moves_depends_on_its_size():
    """0.17 m is a step for a pedestrian (from 0.042 m), 0.141 m is none for a car (from 0.150 m)."""
    output, targets = motion()
    state = unified_motion_losses(output, targets)["loss_state"]
    assert_close(state, 0.1 * F.cross_entropy(output.state, torch.tensor([0, 1, 1])))
    targets.motion = torch.tensor([[0.1, 0, 0, 0]] * 3)
    state = unified_motion_losses(output, targets)["loss_state"]
    assert_close(state, 0.1 * F.cross_entropy(output.state, torch.tensor([0, 0, 1])))


# ---------------------------------------------------------------------------------------------------------- learning


def surface(size, yaw, centre, points, generator):
    """Points on two sides of a box, in the frame in which it is given."""
    width, length, height = size
    unit = torch.rand(points, 3, generator=generator) - 0.5
    side = torch.rand(points, generator=generator) < 0.5
    unit[:, 0] = torch.where(side, torch.full((points,), -0.5), unit[:, 0])
    unit[:, 1] = torch.where(side, unit[:, 1], torch.full((points,), -0.5))
    local = unit * torch.tensor([length, width, height])
    cos, sin = torch.tensor(yaw).cos(), torch.tensor(yaw).sin()
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    return local @ turn.T + torch.tensor(centre)


@pytest.mark.slow
def test_siamcut_learns_cars_and_pedestrians_together():
    """Eight pairs, both categories in every batch, one set of weights."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    dims = ((16, 16, 32), (32, 32, 64), (64, 64, 64))
    network = SiameseNetwork(AdaFormer(0, dims, num_samples=16, num_neighbours=8), 64, 64, 16)
    templates, searches, boxes, labels, sizes = [], [], [], [], []
    for size in (CAR, PEDESTRIAN) * 4:
        offset = ((torch.rand(3, generator=generator) - 0.5) * torch.tensor([1.2, 1.2, 0.2])).tolist()
        yaw = float(torch.rand(1, generator=generator) - 0.5) * 0.4
        templates.append(surface(size, 0.0, (0.0, 0.0, 0.0), 64, generator))
        target = surface(size, yaw, offset, 64, generator)
        clutter = (torch.rand(64, 3, generator=generator) - 0.5) * torch.tensor([6.0, 6.0, 0.1]) - torch.tensor(
            [0, 0, 1.0]
        )
        order = torch.randperm(128, generator=generator)
        searches.append(torch.cat([target, clutter])[order])
        labels.append((order < 64).float())
        boxes.append(torch.tensor([*offset, yaw]))
        sizes.append(size)
    template, search = torch.stack(templates), torch.stack(searches)
    targets = SiameseTargets(torch.stack(boxes), torch.stack(labels), torch.tensor(sizes))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    first = None
    for _ in range(100):
        loss = sum(unified_siamese_losses(network(template, search), targets).values())
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (network(template, search).best()[0][:, :3] - targets.box[:, :3]).norm(dim=-1)
    assert loss.item() < first / 4
    assert error[::2].mean() < 0.5
    assert error[1::2].mean() < 0.5
    assert all(stage.block.attn.group_reg.fc2.weight.abs().max() > 0.01 for stage in network.backbone.stages)


@pytest.mark.slow
def test_m2track_learns_motions():
    """Sixteen pairs of cars and pedestrians: the second stage finds their boxes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rows, boxes, previous, labels, clouds, sizes = [], [], [], [], [], []
    for size in (CAR, PEDESTRIAN) * 8:
        move = ((torch.rand(3, generator=generator) - 0.5) * torch.tensor([1.6, 1.0, 0.1])).tolist()
        before = surface(size, 0.0, (0.0, 0.0, 0.0), 48, generator)
        after = surface(size, 0.1, move, 48, generator)
        ground = (torch.rand(32, 3, generator=generator) - 0.5) * torch.tensor([6.0, 6.0, 0.0]) - torch.tensor(
            [0, 0, 1.0]
        )
        xyz = torch.cat([before, ground[:16], after, ground[16:]])
        on = torch.tensor([1] * 48 + [0] * 16 + [1] * 48 + [0] * 16)
        time = torch.tensor([0.0] * 64 + [0.1] * 64)
        mask = torch.cat([on[:64].float() * 0.6 + 0.2, torch.full((64,), 0.5)])
        corners = torch.tensor([[x, y, z] for x in (0.5, -0.5) for y in (0.5, -0.5) for z in (0.5, -0.5)])
        corners = torch.cat([torch.zeros(1, 3), corners * torch.tensor([size[1], size[0], size[2]])])
        centre = torch.where(time[:, None] > 0, torch.tensor(move), torch.zeros(3))
        cloud = (xyz[:, None] - centre[:, None] - corners).norm(dim=-1)
        rows.append((torch.cat([xyz, time[:, None], mask[:, None]], 1), torch.where(time[:, None] > 0, 0, cloud)))
        boxes.append(torch.tensor([*move, 0.1]))
        previous.append(torch.zeros(4))
        labels.append(on)
        clouds.append(cloud)
        sizes.append(size)
    points, known = (torch.stack(column) for column in zip(*rows, strict=True))
    box = torch.stack(boxes)
    targets = MotionTargets(
        box, torch.stack(previous), box, torch.stack(labels), torch.stack(clouds), torch.tensor(sizes)
    )
    network = MotionNetwork(SegPointNet())
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(40):
        output = network(points, known)
        loss = sum(m2track_losses(output, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.8
    assert (output.boxes[:, :3] - box[:, :3]).norm(dim=-1).mean() < 0.25
