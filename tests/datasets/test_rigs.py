"""Frames with their neighbours and the transforms of BEVFormer v2, against numbers recorded from its code."""

import math
import random
import shutil

import msgspec
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image

from perception.datasets.driving import transforms
from perception.datasets.driving.grid_mask import grid_mask
from perception.datasets.driving.infos import (
    CAMERAS,
    CLASSES,
    Camera,
    Frame,
    Objects,
    PerspectiveObject,
    decode_frame,
    read_infos,
    write_infos,
)
from perception.datasets.driving.rigs import NuScenesRigs, neighbour_motion
from perception.datasets.resumable import SeededIndex
from perception.engine.errors import UserError
from perception.geometry import boxes3d, cameras, se3
from tests.conftest import REPOSITORY

RECORDED = torch.load(REPOSITORY / "tests/data/reference/bevformer_v2/data_geometry.pt", weights_only=True)
NOTHING = Objects([], [], [], [], [], [], [])
CROP = dict(type="CropResizeRig", size=(54, 96), top=16, heights=(38,))
PIPELINE = [
    dict(type="LoadRigImages"),
    dict(type="LoadBoxes3D"),
    dict(type="FilterBoxes3D", low=(-51.2, -51.2), high=(51.2, 51.2)),
    CROP,
    dict(type="PackRig"),
]


def rigs(folder, split="train", pipeline=PIPELINE, **options):
    return NuScenesRigs(str(folder), f"infos_mini_{split}.msgpack", pipeline=pipeline, **options)


class TestRecordedFrames:
    """Two frames whose sensors and vehicle stand askew, in the fields of BEVFormer's info files."""

    @pytest.fixture
    def data_set(self, tmp_path):
        frames = []
        for time, name in enumerate(("info_adj", "info_cur")):
            info = RECORDED["dataset"][name]
            views = {
                key: Camera(
                    camera["data_path"],
                    camera["sample_data_token"],
                    0,
                    1600,
                    900,
                    camera["cam_intrinsic"].tolist(),
                    se3.compose(camera["sensor2lidar_rotation"], camera["sensor2lidar_translation"]).tolist(),
                    [],
                )
                for key, camera in info["cams"].items()
            }
            poses = [
                se3.from_quaternion(
                    torch.tensor(info[f"{pose}_rotation"], dtype=torch.float64),
                    torch.tensor(info[f"{pose}_translation"], dtype=torch.float64),
                ).tolist()
                for pose in ("lidar2ego", "ego2global")
            ]
            frames.append(Frame(name, "s", "s", time, "l", *poses, views, NOTHING))
        write_infos(tmp_path / "infos.msgpack", "v1.0-mini", "mini_train", frames)
        return NuScenesRigs(str(tmp_path), "infos.msgpack", frame_offsets=(-1, 0), cameras=("CAM_0", "CAM_1"))

    def test_motion_of_the_neighbour(self, data_set):
        motion = neighbour_motion(data_set.frame(0), data_set.frame(1))
        recorded = RECORDED["dataset"]["lidaradj2lidarcurr"].double()  # computed in float32, hundreds of metres away
        torch.testing.assert_close(motion, recorded, atol=1e-3, rtol=0)
        torch.testing.assert_close(motion[:3, :3], recorded[:3, :3], atol=1e-5, rtol=0)

    def test_matrices(self, data_set):
        item = data_set.item(1)
        assert item["offsets"] == tuple(RECORDED["dataset"]["keys"]) == (-1, 0)
        adjacent, current = ([transforms._image_matrix(view) for view in views] for views in item["views"])
        for ours, theirs in zip(current, RECORDED["dataset"]["lidar2img_cur"]):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
        points = torch.tensor([[10.0, 20.0, 1.0], [-15.0, 3.0, 0.5]], dtype=torch.float64)
        back = se3.transform_points(se3.invert(neighbour_motion(data_set.frame(0), data_set.frame(1))), points)
        for ours, theirs, raw in zip(
            adjacent, RECORDED["dataset"]["lidar2img_adj_final"], RECORDED["dataset"]["lidar2img_adj_raw"]
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1.0)
            one = cameras.project(points, torch.from_numpy(ours)).pixels
            torch.testing.assert_close(one, cameras.project(back, raw).pixels, atol=1e-6, rtol=1e-9)

    def test_a_missing_camera_is_named(self, data_set):
        data_set.cameras = (*data_set.cameras, "CAM_2")
        with pytest.raises(UserError, match="has no CAM_2; it has CAM_0, CAM_1"):
            data_set.item(0)


class TestNeighbours:
    def test_none_is_taken_from_another_scene(self, driving_folder, tmp_path):
        frames = [
            decode_frame(raw)
            for split in ("train", "val")
            for raw in read_infos(driving_folder / f"infos_mini_{split}.msgpack").frames
        ]
        write_infos(tmp_path / "both.msgpack", "v1.0-mini", "mini_train", frames)
        both = NuScenesRigs(str(driving_folder), str(tmp_path / "both.msgpack"), frame_offsets=(1, -2, 0))
        found = [both.item(k)["offsets"] for k in range(6)]
        assert found == [(0, 1), (0, 1), (-2, 0), (0, 1), (0, 1), (-2, 0)]

    def test_a_standing_object_stays_put(self, driving_folder):
        """Through the neighbour's matrix it is seen where the neighbour's own matrix shows it."""
        both = rigs(driving_folder, frame_offsets=(-1, 0), pipeline=[])
        item, before, now = both.item(1), both.frame(0), both.frame(1)
        compared = 0
        for k, (name, instance) in enumerate(zip(now.objects.names, now.objects.instances)):
            if name not in ("barrier", "traffic_cone") or instance not in before.objects.instances:
                continue
            then = torch.tensor(before.objects.boxes[before.objects.instances.index(instance)], dtype=torch.float64)
            here = torch.tensor(now.objects.boxes[k], dtype=torch.float64)
            assert (then[:2] - here[:2]).norm() > 1  # the vehicle moved
            for slot, camera in enumerate(CAMERAS):
                own = cameras.image_matrix(
                    torch.tensor(before.cameras[camera].intrinsics, dtype=torch.float64),
                    se3.invert(torch.tensor(before.cameras[camera].lidar_from_camera, dtype=torch.float64)),
                )
                expected = cameras.project(then[None, :3], own)
                if expected.valid.all():
                    matrix = torch.from_numpy(transforms._image_matrix(item["views"][0][slot]))
                    seen = cameras.project(here[None, :3], matrix)
                    torch.testing.assert_close(seen.pixels, expected.pixels, atol=1e-6, rtol=1e-7)
                    compared += 1
        assert compared > 4

    def test_offsets_must_hold_the_frame(self, driving_folder):
        with pytest.raises(ValueError, match="0 among them"):
            rigs(driving_folder, frame_offsets=(-1, 1))

    def test_cameras_go_by_name(self, driving_folder, tmp_path):
        """An info file that lists them in another order gives the same item."""
        infos = read_infos(driving_folder / "infos_mini_val.msgpack")
        frames = [decode_frame(raw) for raw in infos.frames]
        shuffled = [msgspec.structs.replace(f, cameras=dict(reversed(f.cameras.items()))) for f in frames]
        write_infos(tmp_path / "other.msgpack", infos.version, infos.split, shuffled)
        one = rigs(driving_folder, "val")[1]
        two = NuScenesRigs(str(driving_folder), str(tmp_path / "other.msgpack"), pipeline=PIPELINE)[1]
        assert torch.equal(one["inputs"]["img"], two["inputs"]["img"])
        np.testing.assert_array_equal(one["data_samples"].lidar2img, two["data_samples"].lidar2img)


class TestCrop:
    @pytest.mark.parametrize("number", range(6))
    def test_recorded_draws(self, number):
        case = RECORDED["ida"]["cases"][number]
        height = case["resize_dims"][1]
        view = dict(
            name="CAM",
            path="x",
            image=np.zeros((900, 1600, 3), np.uint8),
            intrinsics=RECORDED["ida"]["K"][:3, :3].numpy(),
            camera_from_lidar=RECORDED["ida"]["lidar2cam"].numpy(),
        )
        results = dict(views=[[view]], camera_objects=[[_car_in(RECORDED["ida"]["box_in"])]])
        crop = transforms.CropResizeRig(heights=(height,), flip_prob=float(case["flip"]))
        results = crop.transform(results)
        assert results["flip"] == case["flip"]
        assert view["image"].shape[:2] == case["out_hw"]
        np.testing.assert_allclose(view["intrinsics"], case["cam2img"][:3, :3], atol=1e-9)
        np.testing.assert_allclose(transforms._image_matrix(view), case["lidar2img"], atol=1e-8)
        np.testing.assert_allclose(results["camera_boxes"][0][0], case["box"], atol=1e-9)

    def test_recorded_heights_are_drawn(self):
        heights = list(range(512, 769, 32))
        for case in RECORDED["ida"]["cases"]:
            random.seed(case["seed"])
            view = dict(image=np.zeros((18, 32, 3), np.uint8), intrinsics=np.eye(3), path="x")
            crop = transforms.CropResizeRig(size=(18, 32), top=2, heights=heights)
            assert crop.transform(dict(views=[[view]]))["views"][0][0]["image"].shape[0] == case["resize_dims"][1]

    def test_recorded_pixels(self):
        case = RECORDED["ida_image"]
        top = case["conf"]["crop"][1]
        image, matrix = transforms.crop_resize(case["img_in"].numpy(), np.eye(3), top, case["conf"]["reisze"][0])
        difference = image.astype(int) - case["img_out"].numpy().astype(int)
        assert np.abs(difference).max() <= 1
        np.testing.assert_allclose(matrix, case["cam2img"][:3, :3], atol=1e-9)

    def test_a_mirrored_image_keeps_its_matrix(self, driving_folder):
        plain, mirrored = (
            rigs(driving_folder, pipeline=[*PIPELINE[:3], CROP | dict(flip_prob=prob), PIPELINE[4]])[0]
            for prob in (0, 1)
        )
        assert torch.equal(plain["inputs"]["img"].flip(-1), mirrored["inputs"]["img"])
        np.testing.assert_array_equal(plain["data_samples"].lidar2img, mirrored["data_samples"].lidar2img)
        assert (plain["data_samples"].flip, mirrored["data_samples"].flip) == (False, True)

    def test_another_sensor_is_refused(self, driving_folder):
        data_set = rigs(driving_folder, pipeline=[PIPELINE[0], dict(type="CropResizeRig")])
        with pytest.raises(UserError, match="is 96 x 54, but the recipe crops images of 1600 x 900"):
            data_set[0]


def _car_in(box):
    return PerspectiveObject("car", list(box), [1.0, 0, 0, 0], [0.0, 0, 10], [2.0, 4, 1.5], 3, 0.0)


class TestGround:
    def test_boxes_move_with_the_matrix(self, driving_folder):
        loading = dict(type="LoadBoxes3D")
        before = rigs(driving_folder, pipeline=[loading]).prepare_data(0)["gt_boxes"]
        augmented = rigs(driving_folder, pipeline=[loading, dict(type="AugmentGround")])
        signs = set()
        for seed in range(12):
            random.seed(seed)
            moved = augmented.prepare_data(0)
            after, matrix = moved["gt_boxes"], torch.linalg.inv(torch.from_numpy(moved["bda_inverse"]).double())
            torch.testing.assert_close(after[:, :3], before[:, :3] @ matrix.T, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(after[:, 7:9], before[:, 7:9] @ matrix[:2, :2].T, atol=1e-4, rtol=1e-4)
            scale = float(matrix[:2, :2].det().abs().sqrt())
            assert 0.95 <= scale <= 1.05
            torch.testing.assert_close(after[:, 3:6], before[:, 3:6] * scale, atol=1e-4, rtol=1e-4)
            signs.add(float(matrix[:2, :2].det().sign()))
        assert signs == {1.0, -1.0}

    def test_cameras_stay_where_they_are(self, driving_folder):
        pipeline = [*PIPELINE[:2], dict(type="AugmentGround"), CROP, PIPELINE[4]]
        plain, moved = (rigs(driving_folder, pipeline=steps)[0]["data_samples"] for steps in (PIPELINE, pipeline))
        np.testing.assert_array_equal(moved.lidar2img, plain.lidar2img)
        assert "bda_inverse" not in plain
        assert moved.bda_inverse.shape == (3, 3)

    def test_boxes_outside_and_of_no_class_are_left_out(self, driving_folder):
        low, high = (-10.0, -10.0), (10.0, 20.0)
        pipeline = [
            dict(type="LoadBoxes3D", classes=("car", "pedestrian")),
            dict(type="FilterBoxes3D", low=low, high=high, need_one=False),
        ]
        data_set = rigs(driving_folder, pipeline=pipeline)
        results, frame = data_set.prepare_data(1), data_set.frame(1)
        expected = [
            name
            for name, box, points in zip(frame.objects.names, frame.objects.boxes, frame.objects.lidar_points)
            if name in ("car", "pedestrian") and points and -10 < box[0] < 10 and -10 < box[1] < 20
        ]
        assert [("car", "pedestrian")[label] for label in results["gt_labels"]] == expected
        assert (results["gt_boxes"][:, 6].abs() <= math.pi).all()
        with pytest.raises(Exception, match="Cannot find valid image"):
            rigs(
                driving_folder,
                pipeline=[PIPELINE[1], dict(type="FilterBoxes3D", low=(0, 0), high=(0, 0))],
                max_refetch=2,
            )[0]

    def test_unknown_velocities(self):
        objects = dict(boxes=np.array([[1.0, 2, 0, 4, 2, 1, 0, np.nan, np.nan]]), names=["car"], points=np.array([3]))
        zero = transforms.LoadBoxes3D().transform(dict(objects=objects))["gt_boxes"]
        kept = transforms.LoadBoxes3D(zero_unknown_velocities=False).transform(dict(objects=objects))["gt_boxes"]
        assert zero[0, 7:].tolist() == [0, 0]
        assert kept[0, 7:].isnan().all()
        assert np.isnan(objects["boxes"]).any()  # the item itself is not changed


def test_frames_in_which_no_camera_sees_an_object_are_rejected():
    car = _car_in([1.0, 2, 9, 8])
    behind = msgspec.structs.replace(car, translation=[0.0, 0, -3])
    other = msgspec.structs.replace(car, name="animal")
    seen, cut = np.array([1.0, 2, 9, 8]), np.array([1.0, 0, 9, 0])
    need = transforms.NeedCameraObjects()

    def kept(*pairs):
        objects, boxes = [[one for one, _ in pairs], []], [[box for _, box in pairs], []]
        return need.transform(dict(camera_objects=objects, camera_boxes=boxes)) is not None

    assert kept((behind, seen), (car, seen))
    assert not kept((car, cut), (behind, seen), (other, seen))
    assert not kept()


def test_cameras_count_as_annotated_before_the_crop(driving_folder):
    car, above = (_car_in(box) for box in ([1.0, 40, 9, 50], [1.0, 2, 9, 8]))
    other = msgspec.structs.replace(car, name="animal")
    results = rigs(driving_folder, pipeline=[PIPELINE[0]]).prepare_data(0)
    results["camera_objects"] = [[car, above], [above], [other], [], [], []]
    for step in (transforms.CropResizeRig(**{k: v for k, v in CROP.items() if k != "type"}), transforms.PackRig()):
        results = step.transform(results)
    sample = results["data_samples"]
    assert sample.annotated_cameras == (True, True, False, False, False, False)
    assert [len(instances) for instances in sample.camera_instances] == [1, 0, 0, 0, 0, 0]


class TestImages:
    def test_colours_are_cut_and_not_wrapped(self):
        views = [[dict(image=np.full((4, 4, 3), value, np.uint8)) for value in (2, 253) for _ in range(40)]]
        np.random.seed(0)
        transforms.DistortRigColours().transform(dict(views=views))
        dark, bright = (np.stack([view["image"] for view in views[0][k : k + 40]]) for k in (0, 40))
        assert dark.max() < 60
        assert bright.min() > 80
        assert dark.min() == 0
        assert bright.max() == 255
        assert len(np.unique(bright)) > 10  # each image by itself

    def test_a_resized_image_is_refused(self, driving_folder, tmp_path):
        copy = tmp_path / "copy"
        shutil.copytree(driving_folder / "samples", copy / "samples")
        shutil.copy(driving_folder / "infos_mini_train.msgpack", copy)
        path = next((copy / "samples/CAM_BACK").iterdir())
        with Image.open(path) as image:
            image.resize((48, 27)).save(path)
        with pytest.raises(UserError, match="is 48 x 27, but its calibration is for 96 x 54"):
            [rigs(copy, pipeline=PIPELINE[:1]).prepare_data(k) for k in range(3)]
        path.write_bytes(b"\xff\xd8 broken")
        with pytest.raises(UserError, match="CAM_BACK"):
            [rigs(copy, pipeline=PIPELINE[:1]).prepare_data(k) for k in range(3)]

    def test_packed(self, driving_folder):
        data_set = rigs(driving_folder, frame_offsets=(-1, 0))
        batch = pseudo_collate([data_set[1], data_set[2]])
        assert [tuple(image.shape) for image in batch["inputs"]["img"]] == [(2, 6, 3, 38, 96)] * 2
        sample = batch["data_samples"][0]
        assert sample.camera_names == CAMERAS
        assert sample.lidar2img.shape == (2, 6, 4, 4)
        assert sample.img_shape == (38, 96)
        turned = sample.lidar2img[1, 0][:3] @ _lidar_from_camera(data_set, 0)
        np.testing.assert_allclose(turned, sample.cam2img[0], atol=1e-9)
        assert len(sample.camera_instances) == 6
        for instances in sample.camera_instances:
            assert (instances.boxes_2d[:, 2:] > instances.boxes_2d[:, :2]).all()
            assert (instances.boxes_2d.amax(0) <= torch.tensor([96.0, 38, 96, 38])).all() if len(instances) else True
        assert sample.gt_instances.labels.max() < len(CLASSES)
        centres = sample.gt_instances.bboxes_3d[:, :3].double()
        inside = [
            cameras.inside_image(seen.pixels, 96, 38) & seen.valid
            for seen in (cameras.project(centres, torch.from_numpy(matrix)) for matrix in sample.lidar2img[1])
        ]
        assert torch.stack(inside).any(0).double().mean() > 0.7  # nearly all around is seen

    def test_cameras_of_two_sizes_are_not_packed(self):
        views = [[dict(name=f"C{k}", image=np.zeros((4, 5 + k, 3), np.uint8)) for k in range(2)]]
        with pytest.raises(UserError, match=r"one size when they are packed \(C0: 5 x 4, C1: 6 x 4\)"):
            transforms.PackRig().transform(dict(views=views, offsets=(0,)))

    def test_images_stay_red_green_blue(self, tmp_path):
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
        view = dict(path=str(tmp_path / "red.png"), width=8, height=8)
        transforms.LoadRigImages().transform(dict(views=[[view]]))
        assert view["image"][0, 0].tolist() == [255, 0, 0]

    def test_a_seed_repeats_all_draws(self, driving_folder):
        pipeline = [
            dict(type="mmdet.SeedAugmentation"),
            PIPELINE[0],
            dict(type="DistortRigColours"),
            PIPELINE[1],
            dict(type="AugmentGround"),
            PIPELINE[2],
            CROP | dict(heights=(30, 34, 38), flip_prob=0.5),
            dict(type="DrawGridMask"),
            PIPELINE[4],
        ]
        data_set = rigs(driving_folder, pipeline=pipeline)
        first, _, again = (data_set[SeededIndex(0, seed)] for seed in (5, 6, 5))
        assert torch.equal(first["inputs"]["img"], again["inputs"]["img"])
        for key in ("bda_inverse", "lidar2img", "flip"):
            np.testing.assert_array_equal(first["data_samples"].get(key), again["data_samples"].get(key))


@pytest.mark.parametrize(
    ("height", "width", "period", "rows", "columns"),
    [(64, 96, 20, 7, 3), (64, 96, 2, 0, 1), (32, 40, 31, 30, 12), (33, 47, 5, 4, 4)],
)
def test_grid_mask_is_what_loops_draw(height, width, period, rows, columns):
    canvas_height, canvas_width = int(1.5 * height), int(1.5 * width)
    stripe = min(max(int(period * 0.5 + 0.5), 1), period - 1)
    canvas = np.ones((canvas_height, canvas_width))
    for i in range(canvas_height // period):
        canvas[period * i + rows : min(period * i + rows + stripe, canvas_height)] = 0
    for i in range(canvas_width // period):
        canvas[:, period * i + columns : min(period * i + columns + stripe, canvas_width)] = 0
    top, left = (canvas_height - height) // 2, (canvas_width - width) // 2
    expected = 1 - canvas[top : top + height, left : left + width]
    np.testing.assert_array_equal(grid_mask(height, width, period, rows, columns), expected.astype(bool))
    assert 0.3 < expected.mean() < 1


def test_grid_masks_are_of_padded_images():
    drawn = []
    for seed in range(30):
        random.seed(seed)
        results = dict(views=[[dict(image=np.zeros((40, 70, 3), np.uint8))]])
        drawn.append(transforms.DrawGridMask(0.7, 32).transform(results).get("grid_mask"))
    masks = [mask for mask in drawn if mask is not None]
    assert 14 < len(masks) < 27
    assert {mask.shape for mask in masks} == {(64, 96)}


def test_pipelines_compose_from_their_names():
    assert len(Compose(PIPELINE).transforms) == len(PIPELINE)


def test_corners_of_packed_boxes_enclose_the_pixels_of_their_cameras(driving_folder):
    """Targets of the cameras and boxes of the scene are the same objects, after the crop."""
    sample = rigs(driving_folder)[0]["data_samples"]
    corners = boxes3d.corners(sample.gt_instances.bboxes_3d.double())
    compared = 0
    for matrix, instances in zip(sample.lidar2img[0], sample.camera_instances):
        for box, label in zip(instances.boxes_2d.double(), instances.labels):
            same = (sample.gt_instances.labels == label).nonzero()[:, 0]
            seen = cameras.project(corners[same].flatten(0, 1), torch.from_numpy(matrix)).pixels.view(-1, 8, 2)
            hulls = torch.cat([seen.amin(1), seen.amax(1)], 1)
            hulls = torch.minimum(hulls.clamp(min=0), torch.tensor([96.0, 38, 96, 38]).double())
            assert (hulls - box).abs().amax(1).min() < 1.0
            compared += 1
    assert compared > 8


def _lidar_from_camera(data_set, slot):
    """(4, 3) homogeneous points of the camera's axes, without its place: K times the identity comes back."""
    camera = data_set.frame(1).cameras[CAMERAS[slot]]
    pose = np.array(camera.lidar_from_camera)
    axes = np.zeros((4, 3))
    axes[:3] = pose[:3, :3]
    return axes
