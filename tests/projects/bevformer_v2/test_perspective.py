"""The perspective head: numbers recorded from the authors' code, and the laws that define them."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from perception.geometry import se3
from projects.bevformer_v2.perspective.boxes import (
    COMPONENTS,
    BoxDecoding,
    CameraBoxes,
    allocentric_to_egocentric,
)
from projects.bevformer_v2.perspective.head import NuscenesDD3D, PerspectiveOutput, flatten, locations
from projects.bevformer_v2.perspective.inference import detect, level_candidates, to_lidar
from projects.bevformer_v2.perspective.losses import (
    CANONICAL_SIZES,
    PerspectiveCriterion,
    giou_loss,
    released_smooth_l1,
    smooth_l1,
)
from projects.bevformer_v2.perspective.targets import CameraTargets, assigned_boxes, centerness

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "bevformer_v2"
RECORDED = torch.load(FOLDER / "dd3d.pt", weights_only=True)
DECODING = BoxDecoding(CANONICAL_SIZES)
STRIDES = RECORDED["strides"]
OUTPUT_WIDTHS = (1, 4, 1, 4, 2, 1, 3, 1, 3, 1)  # of the fields of a PerspectiveOutput of one class


def targets():
    return [CameraTargets(**parts) for parts in RECORDED["objects"]]


def recorded_output():
    """Predictions of all places with the recorded classes, and with the recorded rest where objects are learned.

    Attributes and speeds were not recorded; they are those of this head at the recorded weights.
    """
    places = len(RECORDED["logits"])
    sizes = [height * width for height, width in RECORDED["shapes"]]
    rows = dict(RECORDED["positives"])
    flat = {"logits": RECORDED["logits"]}
    for name, values in rows.items():
        flat[name] = torch.zeros(places, values.shape[1]).index_copy(0, RECORDED["targets"]["positive"], values)

    def maps(values):
        parts = values.split([2 * size for size in sizes])
        return [x.view(2, *shape, -1).permute(0, 3, 1, 2) for x, shape in zip(parts, RECORDED["shapes"])]

    return PerspectiveOutput(**{field.name: maps(flat[field.name]) for field in fields(PerspectiveOutput)})


# -------------------------------------------------------------------------------------------------------------- network


def test_recorded_network():
    """The fourth level, in training: batch statistics of its own norms."""
    case = RECORDED["network"]
    head = NuscenesDD3D(10, 16)
    for key, value in RECORDED["init_scales"].items():
        assert float(head.state_dict()[key]) == pytest.approx(value)
    loaded = head.load_state_dict(case["state_dict"], strict=False)
    assert loaded.unexpected_keys == []
    assert all(".norm." in key for key in loaded.missing_keys)
    empty = [torch.zeros(2, 16, *shape) for shape in RECORDED["shapes"]]
    output = head([*empty[:3], *case["features"], empty[4]])
    for name, recorded in case["outputs"].items():
        assert_close(getattr(output, name)[3], recorded[0], atol=1e-4, rtol=1e-5)
    for key, value in case["running"].items():
        assert_close(head.state_dict()[key], value)


def test_sizes():
    with torch.device("meta"):
        head = NuscenesDD3D()
    assert sum(parameter.numel() for parameter in head.parameters()) / 1e6 == pytest.approx(7.41, abs=5e-3)
    with pytest.raises(ValueError, match="4 strides"):
        NuscenesDD3D(10, 16, strides=(8, 16, 32, 64))
    with pytest.raises(ValueError, match="one number or three"):
        NuscenesDD3D(10, 16, num_convs=(4, 4))


def test_what_does_not_fit_is_refused():
    head = NuscenesDD3D(10, 16, num_convs=1)
    with pytest.raises(ValueError, match="5 levels, but there are maps of 4"):
        head([torch.zeros(1, 16, 2, 2)] * 4)
    with pytest.raises(ValueError, match="predictions for 2 images, but targets of 1"):
        PerspectiveCriterion()(recorded_output(), targets()[:1])
    with pytest.raises(ValueError, match="3 levels, but predictions for 5"):
        PerspectiveCriterion(strides=(8, 16, 32))(recorded_output(), targets())


def test_towers_of_different_depths():
    head = NuscenesDD3D(10, 16, num_convs=(1, 2, 3))
    depths = [
        len(tower) for tower in (head.fcos2d_head.cls_tower, head.fcos2d_head.box2d_tower, head.fcos3d_head.box3d_tower)
    ]
    assert depths == [1, 2, 3]
    output = head([torch.randn(1, 16, *shape) for shape in [*RECORDED["shapes"][:4], (2, 2)]])
    assert output.quat[0].shape == (1, 40, 16, 24)


def test_initialisation():
    head = NuscenesDD3D(10, 16)
    assert not any(p.any() for name, p in head.named_parameters() if name.endswith(("logits.bias", "quat.0.bias")))
    weight = head.fcos2d_head.cls_tower[0].weight
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    bound = math.sqrt(3 / (16 * 9))
    assert 0.9 * bound < float(head.speed.weight.detach().abs().max()) <= bound


def test_a_single_place_of_a_level_is_normalised_as_in_evaluation():
    """Batch norm refuses it in training: small images have it on their last level."""
    head = NuscenesDD3D(10, 16)
    feats = [torch.randn(1, 16, *shape) for shape in [*RECORDED["shapes"][:4], (1, 1)]]
    trained = head(feats)
    evaluated = head.eval()(feats)
    assert_close(trained.size[4], evaluated.size[4])
    assert not torch.allclose(trained.size[3], evaluated.size[3])


def test_it_computes_in_float32():
    head = NuscenesDD3D(10, 16).eval()
    feats = [torch.randn(1, 16, *shape) for shape in RECORDED["shapes"]]
    expected = head(feats)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(feats)
    for field in fields(PerspectiveOutput):
        assert all(map(torch.equal, getattr(found, field.name), getattr(expected, field.name)))


# -------------------------------------------------------------------------------------------------------------- targets


def test_recorded_targets():
    case, output = RECORDED["targets"], recorded_output()
    found = PerspectiveCriterion().assign(output, targets())
    for name in ("labels", "positive", "target"):
        assert getattr(found, name).equal(case[name])
    assert_close(found.box2d, case["box2d"])
    assert_close(found.locations, case["locations"])
    assert_close(centerness(found.box2d), case["centerness"])
    boxes = assigned_boxes(found, targets())
    for name in COMPONENTS:
        assert_close(getattr(boxes, name), case[name], atol=1e-4, rtol=1e-5)


def test_smaller_objects_come_first_and_sides_decide_the_level():
    intrinsics = torch.eye(3)
    boxes2d = torch.tensor([[0.0, 0, 100, 100], [40, 40, 60, 60], [0, 0, 190, 20]])
    boxes3d = torch.tensor([[1.0, 0, 0, 0, 0, 0, 5, 1, 1, 1]]).repeat(3, 1)
    target = CameraTargets(torch.tensor([4, 5, 6]), boxes2d, boxes3d, torch.zeros(3).long(), torch.zeros(3), intrinsics)
    found = PerspectiveCriterion().assign(recorded_output(), [target, target])
    labels = found.labels.split([2 * h * w for h, w in RECORDED["shapes"]])
    first = labels[0][:384].view(16, 24)
    # Windows of 12 pixels around (50, 50): the smaller box where a place is within it, not on its border.
    assert (first[6, 6], first[7, 7], first[7, 5], first[4, 6]) == (5, 5, 4, 10)
    second = labels[1][:96].view(8, 12)
    assert (second[2, 2], second[1, 5], second[1, 7]) == (4, 6, 6)  # sides between 64 and 128
    assert not (first == 6).any()
    assert all((level == 10).all() for level in labels[2:])


# --------------------------------------------------------------------------------------------------------------- losses


def test_recorded_losses():
    found = PerspectiveCriterion(beta_bug=True)(recorded_output(), targets())
    assert set(found) == set(RECORDED["losses"])
    for name, value in RECORDED["losses"].items():
        assert_close(found[name], value, rtol=1e-4, atol=0)


def test_the_released_corner_loss_is_the_default():
    output = recorded_output()
    released = PerspectiveCriterion()(output, targets())
    mended = PerspectiveCriterion(beta_bug=False)(output, targets())
    differ = {name for name in mended if not torch.equal(mended[name], released[name])}
    assert differ <= {f"loss_box3d_{component}" for component in COMPONENTS}
    assert len(differ) >= 3


def test_recorded_smooth_l1():
    case = RECORDED["smooth_l1"]
    assert_close(released_smooth_l1(case["x"], 0.05), case["dd3d"])
    assert float(released_smooth_l1(torch.tensor(0.04999), 0.05)) == pytest.approx(0.00125, rel=1e-3)
    assert float(released_smooth_l1(torch.tensor(0.05001), 0.05)) == pytest.approx(0.025, rel=1e-3)
    assert float(smooth_l1(torch.tensor(0.04999), 0.05)) == pytest.approx(0.025, rel=1e-3)


def test_recorded_box_losses():
    case = RECORDED["iou_loss"]
    assert_close(giou_loss(case["pred"], case["target"]).sum(), case["giou_sum"])
    assert_close(centerness(case["target"]), case["ctrness"])


def recorded_boxes():
    case = RECORDED["decode"]
    names = ("quat", "proj_ctr", "depth", "size", "labels", "locations", "inv_intrinsics")
    found = DECODING(*(case["inputs"][name] for name in names))
    wanted = CameraBoxes(*(case["target"][name] for name in COMPONENTS), case["inputs"]["inv_intrinsics"])
    return found, wanted


def test_recorded_decoding():
    (found, wanted), case = recorded_boxes(), RECORDED["decode"]
    sign = (found.quat * case["outputs"]["quat"]).sum(1, keepdim=True).sign()
    assert_close(found.quat * sign, case["outputs"]["quat"], atol=1e-5, rtol=0)
    for name in COMPONENTS[1:]:
        assert_close(getattr(found, name), case["outputs"][name], atol=1e-4, rtol=1e-5)
    assert_close(found.centers(), case["outputs"]["tvec"], atol=1e-4, rtol=1e-5)
    assert_close(found.corners(), case["outputs"]["corners"], atol=1e-4, rtol=1e-5)
    assert_close(wanted.corners(), case["target"]["corners"], atol=1e-4, rtol=1e-5)


def test_recorded_disentangled_losses():
    (found, wanted), case = recorded_boxes(), RECORDED["decode"]
    criterion = PerspectiveCriterion(beta_bug=True)
    for component, loss in criterion.disentangled(found, wanted).items():
        expected = case["disentangled"][f"loss_box3d_{component}"]
        assert_close((loss * case["weights"]).sum(), expected, rtol=1e-4, atol=0)
    assert_close(criterion.wanted_confidence(found, wanted), case["conf_target"], rtol=1e-4, atol=1e-7)
    perfect = criterion.disentangled(wanted, wanted)
    assert all(not loss.any() for loss in perfect.values())
    assert_close(criterion.wanted_confidence(wanted, wanted), torch.ones(12))


def test_recorded_allocentric_rotation():
    case = RECORDED["allocentric"]
    unit = F.normalize(case["quat"], dim=1)
    found = allocentric_to_egocentric(unit, case["proj_ctr"], RECORDED["decode"]["inputs"]["inv_intrinsics"])
    sign = (found * case["ego"]).sum(1, keepdim=True).sign()
    assert_close(found * sign, case["ego"], atol=1e-5, rtol=0)
    assert_close(se3.quaternion_to_matrix(unit), case["R"], atol=1e-5, rtol=0)


def test_on_the_optical_axis_nothing_turns():
    inverse = torch.linalg.inv(torch.tensor([[100.0, 0, 48], [0, 100, 32], [0, 0, 1]]))[None]
    identity = torch.tensor([[1.0, 0, 0, 0]])
    assert_close(allocentric_to_egocentric(identity, torch.tensor([[48.0, 32]]), inverse), identity)


def test_depth_grows_with_the_focal_length():
    raw = (torch.ones(1, 4), torch.zeros(1, 2), torch.tensor([20.0]), torch.zeros(1, 3))
    label, where = torch.tensor([3]), torch.tensor([[40.0, 30]])
    depths = []
    for focal in (200.0, 400.0):
        inverse = torch.linalg.inv(torch.tensor([[focal, 0, 48], [0, focal, 32], [0, 0, 1]]))[None]
        boxes = DECODING(*raw, label, where, inverse)
        depths.append(float(boxes.depth))
        assert_close(boxes.size, torch.tensor(CANONICAL_SIZES)[3:4])
    assert depths[1] == pytest.approx(2 * depths[0])
    assert depths[0] == pytest.approx(20 * 200 / math.sqrt(2) / 500)


def test_double_precision_is_kept():
    head = NuscenesDD3D(10, 16, num_convs=1).double().eval()
    output = head([torch.randn(2, 16, *shape, dtype=torch.float64) for shape in RECORDED["shapes"]])
    losses = PerspectiveCriterion()(output, targets())
    assert all(loss.dtype == torch.float64 for loss in losses.values())


def test_images_without_objects():
    output = recorded_output()
    for field in fields(PerspectiveOutput):
        for x in getattr(output, field.name):
            x.requires_grad_()
    nothing = [
        CameraTargets(*(getattr(t, f.name)[:0] for f in fields(CameraTargets)[:5]), t.intrinsics) for t in targets()
    ]
    losses = PerspectiveCriterion()(output, nothing)
    assert all(float(loss) == 0 for name, loss in losses.items() if name != "loss_cls")
    assert float(losses["loss_cls"]) > 0
    sum(losses.values()).backward()  # every prediction stays part of the graph
    assert all(x.grad is not None for field in fields(PerspectiveOutput) for x in getattr(output, field.name))


@pytest.mark.slow
def test_it_learns_two_images():
    torch.manual_seed(0)
    head, criterion = NuscenesDD3D(10, 16), PerspectiveCriterion()
    feats = [torch.randn(2, 16, *shape, requires_grad=True) for shape in RECORDED["shapes"]]
    optimizer = torch.optim.AdamW([*head.parameters(), *feats], 1e-2)
    history = []
    for _ in range(61):
        losses = criterion(head(feats), targets())
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[0] > 40
    assert history[25] < 15
    assert history[60] < 4
    assert float(losses["loss_centerness"]) > 0.3  # its entropy remains


# ------------------------------------------------------------------------------------------------------------ inference


def test_recorded_candidates():
    """All of the smallest recorded level and image, in any order."""
    case = RECORDED["inference"]
    output = PerspectiveOutput(
        **{
            field.name: [torch.zeros(2, 1, *shape) for shape in RECORDED["shapes"]]
            for field in fields(PerspectiveOutput)
        }
    )
    for name, recorded in RECORDED["network"]["outputs"].items():
        getattr(output, name)[3] = recorded[0]
    intrinsics = torch.stack([target.intrinsics for target in targets()])
    found = level_candidates(output, 3, STRIDES, intrinsics, DECODING, 0.05, 200)[case["img"]]
    assert len(found.scores) == len(case["scores"])
    ours = torch.cat([found.labels[:, None], found.boxes2d, found.scores[:, None]], 1)
    theirs = torch.cat([case["classes"][:, None], case["boxes"], case["scores"][:, None]], 1)
    nearest = torch.cdist(theirs, ours).argmin(1)
    assert_close(ours[nearest], theirs, atol=1e-3, rtol=1e-5)
    assert len(set(nearest.tolist())) == len(nearest)
    chosen = found[nearest]
    assert_close(chosen.scores3d, case["scores_3d"], atol=1e-5, rtol=0)
    assert_close(chosen.boxes.centers(), case["tvec"], atol=1e-3, rtol=1e-4)
    assert_close(chosen.boxes.size, case["size"], atol=1e-4, rtol=1e-4)
    assert_close((chosen.boxes.quat * case["quat"]).sum(1).abs(), torch.ones(60), atol=1e-4, rtol=0)


def test_neighbours_of_a_class_are_suppressed():
    output = recorded_output()
    intrinsics = torch.stack([target.intrinsics for target in targets()])
    found = detect(output, STRIDES, intrinsics, DECODING, 0.05, max_per_image=20)
    for detections in found:
        assert len(detections.scores) == 20
        assert (detections.scores3d.diff() <= 0).all()
        assert (detections.scores3d <= detections.scores).all()


def test_the_best_in_the_image_are_kept():
    """DD3D suppresses by the 3D score, and then counts off by the one in the image, ties included."""
    shape = (4, 4)
    output = PerspectiveOutput(
        **{
            field.name: [torch.zeros(1, width, *shape)]
            for field, width in zip(fields(PerspectiveOutput), OUTPUT_WIDTHS)
        }
    )
    output.quat[0][:, 0] = 1.0
    output.depth[0][:] = 20.0
    output.box2d[0][:] = 1.0  # too small to touch each other
    output.logits[0].fill_(-20.0)
    places = [(0, 0, 3.0, -2.0), (0, 1, 1.0, 4.0), (1, 0, 2.0, 0.0), (1, 1, 2.0, 1.0), (2, 2, 0.5, 5.0)]
    for row, column, logit, conf in places:
        output.logits[0][0, 0, row, column], output.conf[0][0, 0, row, column] = logit, conf
    intrinsics = torch.tensor([[[100.0, 0, 16], [0, 100, 16], [0, 0, 1]]])
    decoding = BoxDecoding(CANONICAL_SIZES[:1])
    every = detect(output, (8,), intrinsics, decoding, 0.05)[0]
    assert len(every.scores) == 5
    assert (every.scores3d.diff() <= 0).all()
    two = detect(output, (8,), intrinsics, decoding, 0.05, max_per_image=2)[0]
    # The two of logit 2 tie for the second place; of what is left, the best in space comes first.
    centres = (two.boxes2d[:, :2] + two.boxes2d[:, 2:]) / 2
    assert centres.tolist() == [[8, 8], [0, 8], [0, 0]]


def test_boxes_go_to_the_lidar():
    """A car 20 m ahead of a camera that looks along the LiDAR's y axis, heading to its right."""
    lidar_from_camera = torch.eye(4)
    lidar_from_camera[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    lidar_from_camera[:3, 3] = torch.tensor([0.0, 0.5, -0.3])
    upright = torch.tensor([[math.cos(-math.pi / 4), math.sin(-math.pi / 4) * -1, 0, 0]])  # z of the box is -y
    inverse = torch.linalg.inv(torch.tensor([[100.0, 0, 48], [0, 100, 32], [0, 0, 1]]))[None]
    size = torch.tensor([[1.9, 4.6, 1.7]])
    boxes = CameraBoxes(upright, torch.tensor([[48.0, 37]]), torch.tensor([[20.0]]), size, inverse)
    found = to_lidar(boxes, lidar_from_camera)
    assert_close(found, torch.tensor([[0, 20.5, -1.3, 4.6, 1.9, 1.7, 0]]), atol=1e-4, rtol=0)


def test_places_are_multiples_of_the_stride():
    where = locations(recorded_output(), STRIDES)
    assert where[0][25].tolist() == [8, 8]
    assert where[2][-1].tolist() == [160, 96]
    assert len(flatten(recorded_output().depth)) == sum(2 * len(places) for places in where)
