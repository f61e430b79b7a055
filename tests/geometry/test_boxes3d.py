"""Upright boxes against shapely, random points, the devkit and numbers of the authors of two systems."""

import math

import numpy as np
import pytest
import shapely
import torch
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion

from perception.geometry import boxes3d, points, se3
from tests.conftest import REPOSITORY

LEGACY = torch.load(REPOSITORY / "tests/data/reference/bevformer_v2/data_geometry.pt", weights_only=True)
TRACKING = torch.load(REPOSITORY / "tests/data/reference/adaformer/boxes.pt", weights_only=True)


def some_boxes(count, spread=3.0):
    """Boxes that overlap now and then."""
    boxes = torch.randn(count, 7, dtype=torch.float64) * torch.tensor([spread, spread, 0.5, 0, 0, 0, 2])
    boxes[:, 3:6] = torch.rand(count, 3, dtype=torch.float64) * 4 + 0.5
    return boxes


def test_corners_and_points_are_the_devkits():
    cloud = torch.randn(500, 3, dtype=torch.float64) * 3
    boxes = some_boxes(20)
    for scale in (1.0, 1.25):
        inside = boxes3d.points_inside(cloud, boxes, scale)
        for box, corners, mask in zip(boxes.tolist(), boxes3d.corners(boxes), inside):
            theirs = Box(box[:3], [box[4], box[3], box[5]], Quaternion(axis=[0, 0, 1], angle=box[6]))
            np.testing.assert_allclose(corners, theirs.corners().T, atol=1e-12)
            assert mask.tolist() == points_in_box(theirs, cloud.T.numpy(), scale).tolist()
        assert inside.any(1).sum() > 10


def test_corners_by_hand():
    box = torch.tensor([10.0, 20, 5, 4, 2, 1.5, math.radians(30)], dtype=torch.float64)
    cos, sin = math.cos(math.radians(30)), 0.5
    front_left = [10 + 2 * cos - sin, 20 + 2 * sin + cos, 5.75]
    rear_right_bottom = [10 - 2 * cos + sin, 20 - 2 * sin - cos, 4.25]
    np.testing.assert_allclose(boxes3d.corners(box)[[0, 6]], [front_left, rear_right_bottom])
    lengths = [(boxes3d.corners(box)[a] - boxes3d.corners(box)[b]).norm().item() for a, b in boxes3d.EDGES]
    np.testing.assert_allclose(sorted(lengths), [1.5] * 4 + [2] * 4 + [4] * 4)


def test_overlap_seen_from_above_is_shapelys():
    first, second = some_boxes(40), some_boxes(30)
    ours = boxes3d.iou_from_above(first, second)
    polygons = [[shapely.Polygon(p) for p in boxes3d.ground_polygons(x).numpy()] for x in (first, second)]
    theirs = np.array([[a.intersection(b).area / a.union(b).area for b in polygons[1]] for a in polygons[0]])
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert (ours > 0.1).sum() > 20
    torch.testing.assert_close(boxes3d.paired_iou_from_above(first[:30], second), ours[:30].diagonal())


def test_overlap_by_volume_is_the_share_of_random_points():
    rng = np.random.default_rng(3)
    boxes = some_boxes(12, spread=0.8)
    cloud = torch.from_numpy(rng.uniform(-6, 6, (400_000, 3)))
    inside = boxes3d.points_inside(cloud, boxes)
    ours = boxes3d.iou_3d(boxes, boxes)
    for i in range(12):
        for j in range(i):
            both, either = (inside[i] & inside[j]).sum(), (inside[i] | inside[j]).sum()
            assert float(ours[i, j]) == pytest.approx(float(both / either), abs=0.02)
    assert (ours.triu(1) > 0.05).sum() > 10
    torch.testing.assert_close(ours.diagonal(), torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize("number", range(3))
def test_overlaps_of_tracked_boxes_are_recorded_ones(number):
    case = TRACKING["sequences"][number]
    torch.testing.assert_close(boxes3d.paired_iou_3d(case["gt"], case["pred"]), case["iou3d"], atol=1e-5, rtol=0)
    above = boxes3d.paired_iou_from_above(case["gt"], case["pred"])
    torch.testing.assert_close(above, case["iou_bev"], atol=1e-5, rtol=0)


def test_overlap_has_gradients_and_empty_boxes_overlap_nothing():
    first, second = some_boxes(3, spread=0.3).requires_grad_(), some_boxes(3, spread=0.3)
    assert torch.autograd.gradcheck(lambda x: boxes3d.paired_iou_3d(x, second), first, atol=1e-4)
    flat = torch.tensor([[0.0, 0, 0, 0, 0, 0, 0]])
    assert boxes3d.iou_3d(flat, flat).item() == 0
    assert boxes3d.iou_3d(flat[:0], flat).shape == (0, 1)


def test_angles_are_wrapped():
    wrapped = boxes3d.wrap_angle(torch.tensor([math.pi, -math.pi, 3.5, -3.5, 7.0], dtype=torch.float64))
    expected = [-math.pi, -math.pi, 3.5 - 2 * math.pi, 2 * math.pi - 3.5, 7 - 2 * math.pi]
    np.testing.assert_allclose(wrapped, expected)


class TestLegacy:
    """mmdet3d 0.17: (x, y, z of the bottom, w, l, h, yaw', vx, vy)."""

    boxes = boxes3d.legacy_sizes_and_yaw(LEGACY["inputs"]["gt_gravity"].double())

    def check(self, ours, name):
        recorded = LEGACY["outputs"][name].double()
        legacy = boxes3d.to_legacy(ours)
        turns = (legacy[:, 6] - recorded[:, 6]) / (2 * math.pi)
        legacy[:, 6] -= 2 * math.pi * turns.round()
        torch.testing.assert_close(legacy, recorded, atol=1e-5, rtol=1e-6)

    def test_there_and_back(self):
        self.check(self.boxes, "bottom")
        back = boxes3d.from_legacy(LEGACY["outputs"]["bottom"].double())
        torch.testing.assert_close(back, self.boxes, atol=1e-6, rtol=0)

    def test_by_hand(self):
        box = torch.tensor([1.0, 2, 3, 4, 2, 1.5, math.radians(30)], dtype=torch.float64)
        expected = [1, 2, 2.25, 2, 4, 1.5, math.radians(-120)]
        np.testing.assert_allclose(boxes3d.to_legacy(box), expected)
        heading = [-math.sin(math.radians(-120)), -math.cos(math.radians(-120))]  # as the convention says
        np.testing.assert_allclose(heading, [math.cos(math.radians(30)), 0.5], atol=1e-12)

    def test_corners_are_the_same_points(self):
        recorded = LEGACY["outputs"]["corners"].double()
        distance = torch.cdist(boxes3d.corners(self.boxes), recorded)
        assert distance.amin(2).max() < 2e-5
        assert distance.amin(1).max() < 2e-5

    def test_turned(self):
        self.check(boxes3d.rotate(self.boxes, -0.3), "rotate_0.3")  # theirs turns clockwise

    def test_mirrored(self):
        self.check(boxes3d.flip_y(self.boxes), "flip_horizontal")
        self.check(boxes3d.flip_x(self.boxes), "flip_vertical")

    def test_scaled(self):
        self.check(boxes3d.scale(self.boxes, 1.04), "scale_1.04")

    def test_range(self):
        half = self.boxes.new_tensor([25.0, 25.0])
        assert boxes3d.centres_in_range(self.boxes, -half, half).tolist() == LEGACY["outputs"]["in_range"].tolist()
        on_the_border = self.boxes.new_tensor([[25.0, 0, 0, 1, 1, 1, 0], [0, -24.9, 9, 1, 1, 1, 0]])
        assert boxes3d.centres_in_range(on_the_border, -half, half).tolist() == [False, True]

    def test_in_the_world(self):
        info, recorded = LEGACY["dataset"]["info_cur"], LEGACY["to_nuscenes"]
        pose = {
            name: se3.from_quaternion(*(torch.tensor(info[f"{name}_{part}"]).double() for part in parts))
            for name, parts in dict.fromkeys(("lidar2ego", "ego2global"), ("rotation", "translation")).items()
        }
        ego = boxes3d.transform(self.boxes, pose["lidar2ego"])
        world = boxes3d.transform(ego, pose["ego2global"])
        torch.testing.assert_close(ego[:, :3], recorded["ego_centre"], atol=1e-5, rtol=0)
        # Recorded from float32 boxes and quaternions that are not quite units.
        torch.testing.assert_close(world[:, :3], recorded["global_centre"], atol=5e-5, rtol=0)
        torch.testing.assert_close(self.boxes[:, 6].float(), recorded["theta_lidar"])
        # A velocity in the plane of the sensor, which is tilted: what two turns one after the other drop is the tilt.
        at_once = boxes3d.transform(self.boxes, pose["ego2global"] @ pose["lidar2ego"])
        torch.testing.assert_close(at_once[:, 7:9], recorded["global_velocity"][:, :2], atol=1e-5, rtol=0)


class TestMotions:
    boxes = torch.cat([some_boxes(30), torch.randn(30, 3, dtype=torch.float64)], 1)
    boxes[:, 9] = torch.arange(30)  # a column that nothing may touch

    @pytest.mark.parametrize(
        ("motion", "matrix"),
        [
            (lambda b: boxes3d.rotate(b, 0.4), se3.rotation_about_z(torch.tensor(0.4, dtype=torch.float64))),
            (boxes3d.flip_x, torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))),
            (boxes3d.flip_y, torch.diag(torch.tensor([1.0, -1, 1], dtype=torch.float64))),
            (lambda b: boxes3d.scale(b, 1.3), 1.3 * torch.eye(3, dtype=torch.float64)),
        ],
    )
    def test_corners_and_velocities_move_with_the_box(self, motion, matrix):
        moved = motion(self.boxes)
        distance = torch.cdist(boxes3d.corners(moved), boxes3d.corners(self.boxes) @ matrix.T)
        assert distance.amin(2).max() < 1e-9
        torch.testing.assert_close(moved[:, 7:9], self.boxes[:, 7:9] @ matrix[:2, :2].T)
        front = [torch.stack([b[:, 6].cos(), b[:, 6].sin()], 1) for b in (self.boxes, moved)]
        turned = torch.nn.functional.normalize(front[0] @ matrix[:2, :2].T)
        torch.testing.assert_close(turned, front[1])
        assert torch.equal(moved[:, 9], self.boxes[:, 9])
        assert motion(self.boxes[:, :7]).shape == (30, 7)

    def test_a_level_pose_moves_corners(self):
        pose = se3.compose(se3.rotation_about_z(torch.tensor(2.0)), torch.tensor([900.0, -300, 2])).double()
        moved = boxes3d.transform(self.boxes, pose)
        corners = se3.transform_points(pose, boxes3d.corners(self.boxes).view(-1, 3)).view(-1, 8, 3)
        torch.testing.assert_close(boxes3d.corners(moved), corners)
        back = boxes3d.transform(moved, se3.invert(pose))
        back[:, 6] += 2 * math.pi * ((self.boxes[:, 6] - back[:, 6]) / (2 * math.pi)).round()
        torch.testing.assert_close(back, self.boxes, atol=1e-6, rtol=1e-6)


class TestTracking:
    case = TRACKING["boxes"]
    cloud = case["points"].double()

    def test_sets_of_points(self):
        box, reference = self.case["box"], self.case["reference"]
        for scale, name in ((1.0, "inside"), (1.25, "inside_larger")):
            found = boxes3d.points_inside(self.cloud, box[None], scale)[0].nonzero()[:, 0]
            assert found.tolist() == self.case[name].tolist()
        strictly = points.inside_search_area(self.cloud, box).nonzero()[:, 0]
        assert strictly.tolist() == self.case["strictly_inside"].tolist()
        area = points.inside_search_area(self.cloud, reference, 1.25, 2.0).nonzero()[:, 0]
        assert area.tolist() == self.case["search_area"].tolist()
        kept = self.cloud[boxes3d.points_inside(self.cloud, box[None], 1.25)[0]]
        local = boxes3d.to_box_frame(kept, box)
        torch.testing.assert_close(local, self.case["crop_larger"].double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(boxes3d.from_box_frame(local, box), kept)

    def test_composition(self):
        box, reference = self.case["box"], self.case["reference"]
        torch.testing.assert_close(boxes3d.relative_to(box, reference), self.case["transform_box"])
        moved = boxes3d.moved_by(reference, self.case["offset"])
        torch.testing.assert_close(moved, self.case["offset_box"])

    def test_the_same_on_batches(self):
        recorded = TRACKING["tensor_transforms"]
        boxes = torch.nn.functional.pad(recorded["ref"][:, :3], (0, 3), value=1.0)
        boxes = torch.cat([boxes, recorded["ref"][:, 3:]], 1)
        moved = boxes3d.moved_by(boxes, recorded["offset"])
        torch.testing.assert_close(moved[:, [0, 1, 2, 6]], recorded["offset_box"], atol=1e-6, rtol=0)
        cloud = points.move_with_box(recorded["points"], boxes, recorded["offset"])
        torch.testing.assert_close(cloud, recorded["offset_points"], atol=1e-5, rtol=0)
        local = boxes3d.to_box_frame(recorded["points"], boxes)
        torch.testing.assert_close(local, recorded["removed"], atol=1e-5, rtol=0)

    def test_distances_to_corners(self):
        cloud = points.box_cloud(self.case["first20"].double(), self.case["box"])
        torch.testing.assert_close(cloud, self.case["box_cloud_first20"], atol=1e-5, rtol=0)

    def test_margin_per_axis(self):
        box = torch.tensor([0.0, 0, 0, 4, 2, 2, 0])
        cloud = torch.tensor([[2.9, 0, 0], [0, 1.9, 0], [0, 0, 1.1]])
        assert points.inside_search_area(cloud, box, 1.0, torch.tensor([1.0, 0.5, 0.2])).tolist() == [True, False, True]


class TestKitti:
    label = torch.stack([case["label"] for case in TRACKING["kitti"]])

    def test_labels_become_boxes(self):
        boxes = boxes3d.from_kitti(self.label, torch.linalg.inv(TRACKING["velo_to_cam"]))
        for box, case in zip(boxes, TRACKING["kitti"]):
            torch.testing.assert_close(box[:3], case["centre"], atol=1e-5, rtol=0)
            assert float(boxes3d.wrap_angle(box[6] - case["yaw"])) == pytest.approx(0, abs=1e-9)
            torch.testing.assert_close(boxes3d.corners(box), case["corners"], atol=1e-5, rtol=0)

    def test_and_labels_again(self):
        pose = TRACKING["velo_to_cam"]  # rounded, and so not quite a rotation
        labels = boxes3d.to_kitti(boxes3d.from_kitti(self.label, torch.linalg.inv(pose)), pose)
        torch.testing.assert_close(labels, self.label, atol=1e-9, rtol=0)

    def test_a_box_stands_on_its_label(self):
        """Corners in the camera: the bottom is at the label's y, and y points down."""
        axes = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
        for label in self.label:
            box = boxes3d.from_kitti(label[None], se3.invert(axes))
            corners = se3.transform_points(axes, boxes3d.corners(box)[0])
            h, y = float(label[0]), float(label[4])
            np.testing.assert_allclose(sorted(set(corners[:, 1].numpy().round(9))), [y - h, y], atol=1e-9)
            # rotation_y turns the length from the camera's x axis towards -z.
            front = corners[:4].mean(0) - corners.mean(0)
            angle = float(label[6])
            expected = float(label[2]) / 2 * np.array([math.cos(angle), -math.sin(angle)])
            np.testing.assert_allclose(front[[0, 2]], expected, atol=1e-9)
