"""Tracklets of KITTI, the samples of both kinds of trackers, and the file of points near boxes."""

import math
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from torch.testing import assert_close

from perception.datasets.checks.report import Section
from perception.datasets.resumable import SeededIndex
from perception.datasets.tracklets.cache import CroppedClouds
from perception.datasets.tracklets.crops import SearchArea, resample
from perception.datasets.tracklets.kitti import KittiTracklets
from perception.datasets.tracklets.kitti_files import read_calibration
from perception.datasets.tracklets.samples import (
    MotionSamples,
    SiameseSamples,
    balanced_places,
    motion_inputs,
    moved_target,
)
from perception.datasets.tracklets.sequences import TrackletSequences
from perception.engine.errors import UserError
from perception.geometry import boxes3d
from perception.geometry.points import box_cloud
from tests.datasets.kitti_scenes import SIZES, street, write_scene

RECORDED = Path(__file__).parents[1] / "data" / "reference" / "adaformer" / "geometry.pt"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return street(tmp_path_factory.mktemp("kitti"))


def kitti(root, **options):
    return dict(type=KittiTracklets, data_root=str(root), **options)


# ---------------------------------------------------------------------------------------------------------- KITTI


def test_boxes_hold_their_points(root):
    tracklets = KittiTracklets(str(root), (0,))
    assert [(t.name, t.category, t.frames) for t in tracklets.tracklets] == [
        ("0000/0000/Car", "Car", tuple(range(6))),
        ("0000/0001/Pedestrian", "Pedestrian", tuple(range(6))),
    ]
    car = tracklets.tracklets[0]
    expected = torch.tensor([13.0, 3.0, -0.9, *SIZES["Car"], 0.3], dtype=torch.float64)
    assert_close(car.boxes[2, :6], expected[:6], atol=1e-6, rtol=0)
    assert_close(boxes3d.wrap_angle(car.boxes[2, 6]), expected[6], atol=1e-6, rtol=0)
    for tracklet in tracklets.tracklets:
        for index in range(len(tracklet)):
            points = tracklets.points(tracklet, index).double()
            assert boxes3d.points_inside(points, tracklet.boxes[index : index + 1], 1.001).sum() >= 60


def test_boxes_without_rectification_are_off(root):
    """As in Open3DSOT: with 0.5 degrees about two axes by some decimetres at 12 m."""
    rectified, released = (KittiTracklets(str(root), (0,), calibration=name) for name in ("rectified", "released"))
    shift = (rectified.tracklets[0].boxes - released.tracklets[0].boxes)[:, :3].norm(dim=1)
    assert (shift > 0.1).all()
    assert (shift < 0.3).all()
    assert rectified.fingerprint() != released.fingerprint()


def test_boxes_are_back_where_labels_have_them(tmp_path):
    """With KITTI's own numbers, whose rotations are such to seven digits: the way back is the inverse, not the
    transpose, which is some micrometres off."""
    for folder in ("calib", "label_02", "velodyne"):
        (tmp_path / folder).mkdir()
    written = (
        "7.533745e-03 -9.999714e-01 -6.166020e-04 -4.069766e-03 1.480249e-02 7.280733e-04 -9.998902e-01 -7.631618e-02"
        " 9.998621e-01 7.523790e-03 1.480755e-02 -2.717806e-01"
    )
    file = tmp_path / "calib" / "0000.txt"
    file.write_text(f"R_rect 1 0 0 0 1 0 0 0 1\nTr_velo_cam {written}\n")
    (tmp_path / "label_02" / "0000.txt").write_text("0 1 Car 0 0 0 0 0 0 0 1.5 1.6 3.9 -12.3 1.7 46.2 0.4\n")
    for calibration in ("rectified", "released"):
        box = KittiTracklets(str(tmp_path), (0,), calibration=calibration).tracklets[0].boxes[0]
        centre = read_calibration(file) @ torch.cat([box[:3], torch.ones(1, dtype=torch.float64)])
        assert_close(centre[:3].tolist(), [-12.3, 0.95, 46.2], atol=1e-9, rtol=0)
    file.write_text(f"R_rect 1 0 0 0 1 0 0 0 0\nTr_velo_cam {written}\n")
    with pytest.raises(UserError, match="have no inverse"):
        KittiTracklets(str(tmp_path), (0,))


def test_calibration_dialects(tmp_path):
    text = "R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text(text.replace("R0_rect:", "R_rect").replace("Tr_velo_to_cam:", "Tr_velo_cam"))
    assert torch.equal(read_calibration(tmp_path / "a.txt"), read_calibration(tmp_path / "b.txt"))
    (tmp_path / "c.txt").write_text("Tr_velo_cam 1 2 3\nR_rect 1 0 0 0 1 0 0 0 1\n")
    with pytest.raises(UserError, match="Tr_velo_cam is not a matrix of 3 x 4 numbers"):
        read_calibration(tmp_path / "c.txt")
    (tmp_path / "d.txt").write_text("Tr: 0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3\n")
    with pytest.raises(UserError, match="no entry R_rect"):
        read_calibration(tmp_path / "d.txt")
    assert read_calibration(tmp_path / "d.txt", rectify=False)[2, 3] == 0.3


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: shutil.rmtree(root / "calib"), "has no folder calib"),
        (lambda root: (root / "calib" / "0000.txt").unlink(), "there is no calibration"),
        (lambda root: (root / "label_02" / "0000.txt").unlink(), "there are no labels"),
        (lambda root: (root / "label_02" / "0000.txt").write_text("0 1 Car 0 0\n"), "line 1: 5 columns instead of 17"),
        (lambda root: (root / "label_02" / "0000.txt").write_text("0 1 Tram" + " 1" * 14), "no Car, Van, Pedestrian"),
        (
            lambda root: (root / "label_02" / "0000.txt").write_text(("0 1 Car" + " 1" * 14 + "\n") * 2),
            "0000/0001/Car has two boxes in one frame",
        ),
    ],
)
def test_faults_of_the_data_are_sentences(tmp_path, harm, words):
    root = street(tmp_path / "kitti", scenes=(0,))
    harm(root)
    with pytest.raises(UserError, match=words):
        KittiTracklets(str(root), (0,))


def test_clouds_that_are_missing_or_cut(tmp_path):
    root = street(tmp_path / "kitti", scenes=(0,))
    (root / "velodyne" / "0000" / "000003.bin").unlink()
    tracklets = KittiTracklets(str(root), (0,))
    assert tracklets.points(tracklets.tracklets[0], 3).shape == (0, 3)
    path = root / "velodyne" / "0000" / "000002.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="no multiple of the 16"):
        tracklets.points(tracklets.tracklets[0], 2)
    with pytest.raises(UserError, match="no split 'validation'"):
        KittiTracklets(str(root), "validation")
    with pytest.raises(UserError, match='"rectified" or "released"'):
        KittiTracklets(str(root), (0,), calibration="none")


def test_identity_needs_the_category(tmp_path):
    """The same number stands for a car and for a pedestrian."""
    root = tmp_path / "kitti"
    write_scene(root, "0000", {5: ("Car", [[10, 0, -1, 0.2]] * 2)})
    labels = root / "label_02" / "0000.txt"
    labels.write_text(labels.read_text() + labels.read_text().replace("Car", "Pedestrian"))
    assert len(KittiTracklets(str(root), (0,)).tracklets) == 2


# ---------------------------------------------------------------------------------------------------------- crops


def test_margins():
    """2 m around a car and 0.55 m around a pedestrian; 2 m around both in the published trackers."""
    car, walker = (torch.tensor([0, 0, 0, *SIZES[name], 0.0]) for name in ("Car", "Pedestrian"))
    assert SearchArea().of(car) == pytest.approx(2.0, abs=0.01)
    assert SearchArea().of(walker) == pytest.approx(0.554, abs=0.01)
    assert SearchArea(min_margin=1.0).of(walker) == 1.0
    assert SearchArea(margin=2.0).of(walker) == 2.0


def test_recorded_crops():
    case = torch.load(RECORDED, weights_only=True)
    cloud, box = case["pc"].T, case["box"]
    found = SearchArea(margin=2.0).crop(cloud, case["ref"])
    assert_close(found, case["subwindow_scale1.25_offset2"].T, atol=1e-4, rtol=0)
    assert_close(boxes3d.moved_by(case["ref"], torch.tensor([0.5, -0.3, 0.1, 0.2]).double()), case["offset_box"])
    distances = box_cloud(cloud[:20].double(), box)
    assert_close(distances, case["boxcloud_first20"], atol=1e-5, rtol=0)


def test_recorded_augmentation():
    case = torch.load(RECORDED, weights_only=True)
    shift = torch.tensor([0.1, -0.2, 0.05])
    points, box = moved_target(case["pc"].T.double(), case["box"], shift, math.radians(7), True, True)
    assert_close(points[case["aug_in_idx"]], case["aug_points"].T.double(), atol=1e-5, rtol=0)
    assert_close(boxes3d.wrap_angle(box[6]), case["aug_box"][6])
    assert_close(box[:6], case["aug_box"][:6])


def test_resampling():
    rng = np.random.default_rng(0)
    points = torch.arange(30.0).view(10, 3)
    few, which = resample(points, 4, rng)
    assert torch.equal(few, points[which])
    assert len(set(which.tolist())) == 4
    many, which = resample(points, 25, rng)
    assert torch.equal(many, points[which])
    assert torch.equal(resample(points, 10, rng)[0], points)
    nothing, which = resample(points[:2], 5, rng)
    assert torch.equal(nothing, torch.zeros(5, 3))
    assert set(which.tolist()) == {-1}


# ---------------------------------------------------------------------------------------------------------- cache


def test_cache_holds_what_is_near(root, tmp_path):
    tracklets = KittiTracklets(str(root), (0,))
    cache = CroppedClouds(tracklets, tmp_path, progress=False)
    for number, tracklet in enumerate(tracklets.tracklets):
        for index in range(len(tracklet)):
            box = tracklet.boxes[index]
            expected = SearchArea().crop(tracklets.points(tracklet, index), box)
            assert_close(SearchArea().crop(cache.points(number, index), box), expected, atol=1e-5, rtol=0)
    files = sorted(path.name for path in tmp_path.iterdir())
    times = [(tmp_path / name).stat().st_mtime_ns for name in files]
    copy = pickle.loads(pickle.dumps(CroppedClouds(tracklets, tmp_path, progress=False)))
    assert [(tmp_path / name).stat().st_mtime_ns for name in files] == times  # not made anew
    assert torch.equal(copy.points(0, 1), cache.points(0, 1))


def test_runs_that_start_together_make_one_cache(root, tmp_path, monkeypatch):
    made = []
    make = CroppedClouds._make

    def slow(cache, progress):
        made.append(cache)
        time.sleep(0.3)
        make(cache, progress)

    monkeypatch.setattr(CroppedClouds, "_make", slow)
    tracklets = KittiTracklets(str(root), (0,))
    with ThreadPoolExecutor(3) as pool:
        caches = list(pool.map(lambda _: CroppedClouds(tracklets, tmp_path / "cache", progress=False), range(3)))
    assert len(made) == 1
    assert all(torch.equal(cache.points(0, 0), caches[0].points(0, 0)) for cache in caches)


def test_cache_notices_other_data(tmp_path):
    root = street(tmp_path / "kitti", scenes=(0,))
    first = CroppedClouds(KittiTracklets(str(root), (0,)), tmp_path / "cache", progress=False)
    cloud = root / "velodyne" / "0000" / "000000.bin"
    cloud.write_bytes(cloud.read_bytes()[:16])
    second = CroppedClouds(KittiTracklets(str(root), (0,)), tmp_path / "cache", progress=False)
    assert first.path != second.path
    assert len(second.points(0, 0)) < len(first.points(0, 0))


# ---------------------------------------------------------------------------------------------------------- samples


def test_siamese_samples(root, tmp_path):
    data = SiameseSamples(kitti(root, split=(0,)), str(tmp_path), template_points=64, search_points=96)
    assert len(data) == 2 * 6 * 4
    sample = data[SeededIndex(2 * 4, 7)]  # frame 2 of the car, without perturbation
    template, search = sample["inputs"]["template"], sample["inputs"]["search"]
    assert (template.shape, search.shape) == ((64, 6), (96, 6))
    assert_close(search[:, 3:], torch.tensor(SIZES["Car"]).log().expand(96, 3), atol=1e-5, rtol=0)
    assert_close(sample["targets"]["box"], torch.zeros(4), atol=1e-5, rtol=0)
    length, width, height = SIZES["Car"]
    assert_close(sample["targets"]["size"], torch.tensor([width, length, height]), atol=1e-5, rtol=0)
    inside = (search[:, :3].abs() < torch.tensor([length, width, height]) / 2).all(1)
    assert torch.equal(inside.float(), sample["targets"]["on_target"])
    assert 0 < inside.sum() < 96
    perturbed = data[SeededIndex(2 * 4 + 1, 7)]["targets"]["box"]
    assert perturbed.abs().max() > 0.01
    assert perturbed[2].abs() < 1e-5
    alone = SiameseSamples(kitti(root, split=(0,)), str(tmp_path), candidates=1, template_points=64, search_points=96)
    assert alone[SeededIndex(2, 7)]["targets"]["box"].abs().max() > 0.01  # else targets would never be off the centre


def test_perturbed_samples_show_the_target_where_the_label_says(root, tmp_path):
    data = SiameseSamples(kitti(root, split=(0,)), str(tmp_path), template_points=64, search_points=256)
    degrees = SiameseSamples(
        kitti(root, split=(0,)), str(tmp_path), template_points=64, search_points=256, degrees=True
    )
    for seed in range(5):
        sample = data[SeededIndex(9, seed)]
        x, y, z, yaw = sample["targets"]["box"].tolist()
        box = torch.tensor([x, y, z, *SIZES["Car"], yaw])
        inside = boxes3d.points_inside(sample["inputs"]["search"][:, :3], box[None], 1.0)[0]
        assert torch.equal(inside.float(), sample["targets"]["on_target"])
        assert inside.any()
        other = degrees[SeededIndex(9, seed)]["targets"]["box"]
        assert other[3].item() == pytest.approx(math.degrees(yaw), abs=1e-4)


def test_samples_follow_from_their_seed(root, tmp_path):
    for kind in (SiameseSamples, MotionSamples):
        data = DATASETS.build(dict(type=kind, tracklets=kitti(root, split=(0,)), cache_dir=str(tmp_path)))
        first, second, third = (data[SeededIndex(5, seed)] for seed in (3, 3, 4))
        for group in ("inputs", "targets"):
            for name, value in first[group].items():
                assert torch.equal(value, second[group][name]), name
        assert any(not torch.equal(first["inputs"][name], third["inputs"][name]) for name in first["inputs"])


def test_motion_samples(root, tmp_path):
    data = MotionSamples(kitti(root, split=(0,)), str(tmp_path), points=128, augment=False)
    sample = data[SeededIndex(3 * 4, 0)]  # frames 2 and 3 of the car: half a metre along x
    points, known, targets = sample["inputs"]["points"], sample["inputs"]["box_cloud"], sample["targets"]
    assert (points.shape, known.shape) == ((256, 5), (256, 9))
    moved = torch.tensor([0.5 * math.cos(0.3), -0.5 * math.sin(0.3), 0, 0])
    assert_close(targets["motion"], moved, atol=1e-5, rtol=0)
    assert_close(targets["box"], moved, atol=1e-5, rtol=0)
    assert_close(targets["previous_box"], torch.zeros(4), atol=1e-5, rtol=0)
    assert set(points[:128, 4].tolist()) == {0.0, 1.0}  # the previous box is the true one
    assert set(points[128:, 4].tolist()) == {0.5}
    assert_close(points[:, 3], torch.tensor([0.0, 0.1]).repeat_interleave(128))
    assert not known[128:].any()
    assert_close(known[:128], targets["box_cloud"][:128])
    assert torch.equal(points[:128, 4], targets["on_target"][:128].float())
    assert targets["on_target"][128:].any()
    mask = data[SeededIndex(3 * 4 + 1, 0)]["inputs"]["points"][:128, 4]
    assert_close(mask.unique(), torch.tensor([0.2, 0.8]))


def test_augmented_motion_agrees_with_its_labels(root, tmp_path):
    data = MotionSamples(kitti(root, split=(0,)), str(tmp_path), points=128, augment=True)
    for seed in range(6):
        sample = data[SeededIndex(13, seed)]
        x, y, z, yaw = sample["targets"]["box"].tolist()
        length, width, height = sample["targets"]["size"][[1, 0, 2]].tolist()
        box = torch.tensor([x, y, z, length, width, height, yaw])
        after = sample["inputs"]["points"][128:, :3]
        inside = boxes3d.points_inside(after, box[None], 1.25)[0]
        assert torch.equal(inside.long(), sample["targets"]["on_target"][128:])


def test_data_without_points_in_boxes_are_given_up(tmp_path):
    root = street(tmp_path / "kitti", scenes=(0,))
    for path in (root / "velodyne" / "0000").iterdir():
        path.write_bytes(b"")
    data = SiameseSamples(kitti(root, split=(0,)), str(tmp_path / "cache"))
    with pytest.raises(UserError, match="none had enough points"):
        data[0]


def test_first_step_of_a_tracker_is_certain():
    cloud = torch.rand(10, 3)
    box = torch.tensor([0.0, 0, 0, 1, 1, 1, 0])
    assert set(motion_inputs(cloud, cloud, box, True)["points"][:10, 4].tolist()) <= {0.0, 1.0}
    assert not set(motion_inputs(cloud, cloud, box, False)["points"][:10, 4].tolist()) & {0.0, 1.0}


def test_sequences_read_clouds_when_asked(root):
    data = TrackletSequences(kitti(root, split=(19,)))
    clouds = pickle.loads(pickle.dumps(data[1]["inputs"]))
    assert (len(data), len(clouds), clouds.tracklet.name) == (2, 6, "0019/0001/Pedestrian")
    assert torch.equal(clouds.points(4), data.tracklets.points(clouds.tracklet, 4))


# ---------------------------------------------------------------------------------------------------------- a look


def test_look_counts_and_finds_boxes_without_points(tmp_path):
    root = street(tmp_path / "kitti", scenes=(0,))
    section = Section("train")
    SiameseSamples.examine(dict(tracklets=kitti(root, split=(0,))), section, 100)
    assert section.facts == ["2 tracklets, 12 frames", "categories: Car 6, Pedestrian 6"]
    assert not section.findings.errors + section.findings.warnings
    (root / "velodyne" / "0000" / "000004.bin").write_bytes(b"")
    TrackletSequences.examine(dict(tracklets=kitti(root, split=(0,))), section, 100)
    assert "2 of 12 boxes that were looked at contain no points: 0000/0000/Car in frame 4" in str(
        section.findings.warnings[0]
    )
    for path in (root / "velodyne" / "0000").iterdir():
        path.write_bytes(np.zeros((5, 4), np.float32).tobytes())
    section = Section("train")
    SiameseSamples.examine(dict(tracklets=kitti(root, split=(0,))), section, 100)
    assert "12 of 12 boxes" in str(section.findings.errors[0])


def test_rare_categories_are_drawn_more_often(tmp_path):
    """Of 16 frames of cars and 4 of pedestrians, n^-0.5 makes 2 : 1 of 4 : 1."""
    cars = {track: ("Car", [[12.0, 3.0 * track, -0.9, 0.3]] * 4) for track in range(4)}
    write_scene(tmp_path, "0000", {**cars, 9: ("Pedestrian", [[9.0, -4.0, -0.8, 1.4]] * 4)})
    tracklets = KittiTracklets(str(tmp_path), (0,)).tracklets
    categories = np.repeat([one.category for one in tracklets], [len(one) for one in tracklets])
    for power, pedestrians in ((0.5, 7), (1.0, 10)):
        places = balanced_places(tracklets, power)
        assert len(places) == 20
        assert (categories[places] == "Pedestrian").sum() == pedestrians
    data = SiameseSamples(kitti(tmp_path, split=(0,)), str(tmp_path / "cache"), candidates=1, balance=1.0)
    sizes = [float(data[SeededIndex(index, 0)]["targets"]["size"][2]) for index in range(len(data))]
    assert sizes.count(1.75) == 10  # a pedestrian's height


def test_tracklets_without_points_at_their_start_can_be_left_out(tmp_path):
    write_scene(tmp_path, "0000", {0: ("Car", [[12.0, 3.0, -0.9, 0.3]] * 3), 1: ("Car", [[20.0, 3.0, -0.9, 0.3]] * 3)})
    file = tmp_path / "velodyne" / "0000" / "000000.bin"
    cloud = np.fromfile(file, np.float32).reshape(-1, 4)
    cloud[cloud[:, 0] < 16].tofile(file)
    seen = KittiTracklets(str(tmp_path), (0,), min_first_points=10).tracklets
    assert [one.name for one in seen] == ["0000/0000/Car"]
    with pytest.raises(UserError, match="none of 2 tracklets has 100 points in its first box"):
        KittiTracklets(str(tmp_path), (0,), min_first_points=100)
