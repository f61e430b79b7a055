"""Folders of point clouds: layouts, first boxes, results, holes, bad input, and going on after a kill."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from perception.datasets.tracklets.kitti import KittiTracklets
from perception.datasets.tracklets.kitti_files import read_labels
from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.geometry import boxes3d
from perception.inference.clouds import kind
from perception.inference.clouds.clusters import Clustering
from perception.inference.clouds.first_boxes import read_first_boxes
from perception.inference.clouds.reader import CloudReader
from perception.inference.folder import Job, run
from perception.inference.kinds import Running
from tests.conftest import REPOSITORY
from tests.datasets.kitti_scenes import SIZES, street
from tests.inference.toy_work import lines_of, until

CAR = [12.0, 3.0, -0.9, *SIZES["Car"], 0.3]


@pytest.fixture
def kitti(tmp_path):
    """Two sequences in the layout of KITTI tracking, in each a car that drives and a pedestrian that walks."""
    return street(tmp_path / "kitti", scenes=(0, 1), frames=8)


@pytest.fixture
def model(tmp_path):
    """Config and checkpoint of the toy tracker."""

    def make(seconds=0.0):
        config = tmp_path / "toy.py"
        config.write_text(
            'custom_imports = dict(imports=["tests.inference.clouds.toy_tracker"])\n'
            f'model = dict(type="MiddleTracker", seconds={seconds})\nfolder_kind = dict(type="Clouds")\n'
        )
        checkpoint = tmp_path / "toy.pth"
        torch.save({"state_dict": {"reach": torch.tensor(1.0)}}, checkpoint)
        return str(config), checkpoint

    return make


def job(model, folder, out, **options):
    config, checkpoint = model()
    more = {name: options.pop(name) for name in ("pictures", "overwrite", "patterns") if name in options}
    return run(Job(config, checkpoint, folder, out, workers=1, options=options, **{"pictures": False, **more}))


def plain_folder(kitti, tmp_path, name="clouds", scene="0000"):
    """Clouds of a scene alone, without labels and calibration."""
    folder = tmp_path / name
    shutil.copytree(kitti / "velodyne" / scene, folder)
    return folder


def boxes_file(path, entries, frame="sensor"):
    path.write_text(json.dumps({"frame": frame, "boxes": entries}))
    return str(path)


def car(cloud="000000.bin", **more):
    return {"cloud": cloud, "id": 7, "category": "Car", "box": CAR, **more}


def tracks(out):
    return json.loads((out / "tracks.json").read_text())["sequences"]


# ---------------------------------------------------------------------------------------------------------- results


def test_kitti_layout_with_its_labels(kitti, model, tmp_path):
    report = job(model, kitti, tmp_path / "out", boxes=str(kitti / "label_02"), pictures=True)
    assert (report.finished, report.skipped) == (16, {})
    found = tracks(tmp_path / "out")
    assert set(found) == {"0000", "0001"}
    truth = {t.name: t for t in KittiTracklets(str(kitti), (0, 1)).tracklets}
    for sequence in found.values():
        assert sequence["frame"] == "sensor"
    followed = found["0001"]["tracks"]["Car-0"]["boxes"]
    assert [entry["status"] for entry in followed] == ["given"] + ["ok"] * 7
    assert followed[0]["score"] is None
    assert followed[1]["score"] == 0.75
    centres = torch.tensor([entry["box"][:3] for entry in followed])
    assert (centres - truth["0001/0000/Car"].boxes[:, :3]).norm(dim=1).max() < 0.4
    # Labels are those of KITTI: read by its reader, they give the same boxes back.
    labels = read_labels(tmp_path / "out" / "labels" / "0001.txt")
    assert len(labels) == 16
    rect = CloudReader().scan(kitti, (), tmp_path / "out").sources[-1].details.rect_from_sensor
    sensor_from_rect = torch.linalg.inv(torch.tensor(rect, dtype=torch.float64).view(4, 4))
    back = boxes3d.from_kitti(torch.stack([label.numbers for label in labels]), sensor_from_rect)
    for label, box in zip(labels, back, strict=True):
        expected = found["0001"]["tracks"][f"{label.category}-{label.track - 1}"]["boxes"][label.frame]["box"]
        torch.testing.assert_close(box[:6], torch.tensor(expected[:6]).double(), atol=2e-5, rtol=0)
        assert abs(boxes3d.wrap_angle(box[6] - expected[6])) < 2e-5
    with Image.open(tmp_path / "out" / "images" / "velodyne" / "0001" / "000007.bin.jpg") as picture:
        assert picture.size == (1280, 640)
    with Image.open(tmp_path / "out" / "overviews" / "0001.gif") as overview:
        assert overview.n_frames == 8


def test_plain_folders_with_json(kitti, model, tmp_path):
    """Two targets of which one begins later; each folder is a sequence."""
    folder = tmp_path / "own"
    shutil.copytree(kitti / "velodyne" / "0000", folder / "a")
    shutil.copytree(kitti / "velodyne" / "0001", folder / "b")
    late = [9.0, -3.7, -0.8, *SIZES["Pedestrian"], 1.4]
    boxes = boxes_file(
        tmp_path / "boxes.json",
        [car("a/000000.bin"), {"cloud": "a/000003.bin", "id": "walker", "category": "Pedestrian", "box": late}],
    )
    job(model, folder, tmp_path / "out", boxes=boxes)
    found = tracks(tmp_path / "out")
    assert set(found["a"]["tracks"]) == {"7", "walker"}
    walker = found["a"]["tracks"]["walker"]["boxes"]
    assert [entry["cloud"] for entry in walker] == [f"a/00000{n}.bin" for n in range(3, 8)]
    assert walker[0]["box"] == pytest.approx(late)
    assert found["b"]["tracks"] == {}
    # Without a calibration, labels are of a camera at the sensor that looks along x.
    label = read_labels(tmp_path / "out" / "labels" / "a.txt")[0].numbers.tolist()
    assert label == pytest.approx([*SIZES["Car"][::-1], -3.0, 0.9 + SIZES["Car"][2] / 2, 12.0, -0.3 - math.pi / 2])


def test_a_run_on_a_cpu_keeps_freed_memory(model, monkeypatch):
    """Otherwise a third of a tracker's time goes into mapping its buffers anew."""
    config, checkpoint = model()
    called = []
    monkeypatch.setattr(kind, "keep_freed_memory", lambda: called.append(True))
    running = Running(batch_size=1, workers=0, device=torch.device("cpu"), pictures=False)
    kind.Clouds().predictor(load_config(config), checkpoint, running)
    assert len(called) == 1


def test_clouds_in_millimetres_of_a_sensor_that_is_turned(kitti, model, tmp_path):
    """Boxes are those of the clouds in metres, turned; pictures and labels are those of the sensor that looks ahead."""
    straight = plain_folder(kitti, tmp_path, "straight")
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in straight.iterdir():
        x, y, z, intensity = np.fromfile(path, "<f4").reshape(-1, 4).T
        np.stack([-y * 1000, x * 1000, z * 1000, intensity], 1).astype("<f4").tofile(turned / path.name)
    job(model, straight, tmp_path / "a", boxes=boxes_file(tmp_path / "a.json", [car()]), pictures=True)
    box = [-CAR[1], CAR[0], *CAR[2:6], CAR[6] + math.pi / 2]
    boxes = boxes_file(tmp_path / "b.json", [car(box=box)])
    job(model, turned, tmp_path / "b", boxes=boxes, unit="mm", ahead=90.0, pictures=True)
    expected, found = (next(iter(tracks(tmp_path / out).values()))["tracks"]["7"]["boxes"] for out in "ab")
    for one, other in zip(expected, found, strict=True):
        x, y, *rest = one["box"]
        assert other["box"] == pytest.approx([-y, x, *rest[:-1], rest[-1] + math.pi / 2], abs=1e-4)
    first, second = (
        read_labels(tmp_path / out / "labels" / f"{name}.txt")
        for out, name in zip("ab", ("straight", "turned"), strict=True)
    )
    for one, other in zip(first, second, strict=True):
        assert other.numbers.tolist() == pytest.approx(one.numbers.tolist(), abs=1e-4)
    first, second = (np.asarray(Image.open(tmp_path / out / "images" / "000003.bin.jpg"), float) for out in "ab")
    assert abs(first - second).mean() < 1  # some points fall beside the pixel that they fell on
    with pytest.raises(UserError, match="one of m, cm, mm, not 'km'"):
        job(model, turned, tmp_path / "c", boxes=boxes, unit="km")
    with pytest.raises(UserError, match="number of degrees"):
        job(model, turned, tmp_path / "c", boxes=boxes, ahead=math.nan)


def test_natural_order_and_holes(kitti, model, tmp_path):
    """Names without leading zeros, three clouds missing: the car is looked for where it would be by now."""
    folder = plain_folder(kitti, tmp_path)
    for number in range(8):
        source = folder / f"{number:06d}.bin"
        if number in (3, 4, 5):
            source.unlink()
        else:
            source.rename(folder / f"scan_{number + 8}.bin")
    boxes = boxes_file(tmp_path / "boxes.json", [car("scan_8.bin")])
    job(model, folder, tmp_path / "out", boxes=boxes)
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == [f"scan_{n}.bin" for n in (8, 9, 10, 14, 15)]
    assert [line.get("missed", 0) for line in lines] == [0, 0, 0, 3, 0]
    (sequence,) = tracks(tmp_path / "out").values()
    places = [entry["box"][0] for entry in sequence["tracks"]["7"]["boxes"]]
    assert places == pytest.approx([12, 12.5, 13, 15, 15.5], abs=0.4)
    assert sequence["missed"] == 3


def test_clouds_that_cannot_be_read_are_named_and_bridged(kitti, model, tmp_path):
    folder = plain_folder(kitti, tmp_path)
    (folder / "000002.bin").write_bytes(b"not a cloud at all\n")
    (folder / "000003.bin").write_bytes((folder / "000003.bin").read_bytes()[:-5])
    (folder / "000004.bin").write_bytes(b"")
    report = job(model, folder, tmp_path / "out", boxes=boxes_file(tmp_path / "boxes.json", [car()]))
    assert report.finished == 5
    reasons = dict(report.skipped.items())
    assert "is a text" in reasons["000002.bin"]
    assert "no multiple" in reasons["000003.bin"]
    assert reasons["000004.bin"] == "it is empty"
    (sequence,) = tracks(tmp_path / "out").values()
    assert sequence["missed"] == 3
    assert sequence["tracks"]["7"]["boxes"][-1]["box"][0] == pytest.approx(15.5, abs=0.4)


def test_poses_put_clouds_into_the_world(kitti, model, tmp_path):
    """A sensor that turns and moves: in the world the parked car stays where it is."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    parked = torch.tensor([1012.0, 2003.0, -0.9, *SIZES["Car"], 0.3], dtype=torch.float64)
    body = boxes3d.from_box_frame(torch.from_numpy(rng.uniform(-0.5, 0.5, (200, 3))) * parked[3:6], parked).numpy()
    rows = []
    for frame in range(6):
        yaw, place = 0.2 * frame, np.array([1000.0 + 1.5 * frame, 2000.0, 0.0])
        turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
        rows.append(" ".join(str(v) for v in np.concatenate([turn, place[:, None]], 1).ravel()))
        local = (body - place) @ turn
        np.save(folder / f"{frame}.npy", local.astype(np.float32))
    (folder / "poses.txt").write_text("\n".join(rows))
    first = [*(parked[:3].numpy() - [1000.0, 2000, 0]), *SIZES["Car"], 0.3]
    boxes = boxes_file(tmp_path / "boxes.json", [{"cloud": "0.npy", "id": 1, "category": "Car", "box": first}])
    job(model, folder, tmp_path / "out", boxes=boxes, pictures=True)
    (sequence,) = tracks(tmp_path / "out").values()
    assert sequence["frame"] == "world"
    for entry in sequence["tracks"]["1"]["boxes"]:
        assert entry["box"][:2] == pytest.approx([1012, 2003], abs=0.15)
    # KITTI's labels are the sensor's.
    label = read_labels(tmp_path / "out" / "labels" / "own.txt")[5].numbers
    ahead = 4.5 * math.cos(1.0) + 3.0 * math.sin(1.0)  # of the sensor, which has turned by one radian
    assert label[5] == pytest.approx(ahead, abs=0.2)
    (folder / "poses.txt").write_text("\n".join(rows[:4]))
    report = job(model, folder, tmp_path / "less", boxes=boxes)
    assert report.skipped == {f"{n}.npy": f"poses.txt has no pose for frame {n}" for n in (4, 5)}


def test_clusters(kitti, model, tmp_path):
    """On flat ground, what stands alone and is as large as an object."""
    folder = plain_folder(kitti, tmp_path)
    job(model, folder, tmp_path / "out", clusters=True, clustering=dict(distance=1.0, ground=0.1))
    (sequence,) = tracks(tmp_path / "out").values()
    first = torch.tensor([track["boxes"][0]["box"] for track in sequence["tracks"].values()])
    assert len(first) == 2
    for category, place in (("Car", CAR), ("Pedestrian", [9.0, -4.0])):
        nearest = (first[:, :2] - torch.tensor(place[:2])).norm(dim=1)
        assert nearest.min() < 0.5
        length, width = first[nearest.argmin(), 3:5]
        assert length == pytest.approx(SIZES[category][0], rel=0.35)
        assert width == pytest.approx(SIZES[category][1], rel=0.5)
    assert Clustering(fewest=1000).boxes(np.zeros((5, 3))).shape == (0, 7)


def test_first_boxes_without_points_are_refused(kitti, model, tmp_path):
    folder = plain_folder(kitti, tmp_path)
    away = [-30.0, -30, 5, 4, 2, 1.5, 0]
    entries = [car(), {"cloud": "000000.bin", "id": "ghost", "category": "Car", "box": away}]
    job(model, folder, tmp_path / "out", boxes=boxes_file(tmp_path / "boxes.json", entries))
    (sequence,) = tracks(tmp_path / "out").values()
    assert sequence["refused"] == {"ghost": "its first box contains no points"}
    assert set(sequence["tracks"]) == {"7"}


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "is no JSON file"),
        ("[]", 'has no list of "boxes"'),
        (json.dumps({"boxes": [car()]}), "does not say whether its boxes are in the sensor's or the world's frame"),
        (json.dumps({"frame": "ego", "boxes": [car()]}), "sensor's or the world's frame"),
        (json.dumps({"frame": "sensor", "boxes": []}), "has no box of any of the 8 clouds"),
        (json.dumps({"frame": "sensor", "boxes": [car("000099.bin")]}), "'000099.bin', which is not among"),
        (json.dumps({"frame": "sensor", "boxes": [{"cloud": "000000.bin", "box": CAR}]}), "has no id, category"),
        (json.dumps({"frame": "sensor", "boxes": [car(box=CAR[:6])]}), "seven numbers are expected"),
        (json.dumps({"frame": "sensor", "boxes": [car(box=[*CAR[:3], 4, -2, 1, 0])]}), "must be positive"),
        (json.dumps({"frame": "sensor", "boxes": [car(), car("000001.bin")]}), "stands for two targets"),
    ],
)
def test_box_files_that_cannot_be_used(kitti, model, tmp_path, content, words):
    folder = plain_folder(kitti, tmp_path)
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(UserError, match=words):
        job(model, folder, tmp_path / "out", boxes=str(tmp_path / "boxes.json"))
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_other_refusals(kitti, model, tmp_path):
    folder = plain_folder(kitti, tmp_path)
    with pytest.raises(UserError, match="which objects are to be followed"):
        job(model, folder, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        job(model, folder, tmp_path / "out", boxes=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="names no x, y and z"):
        job(model, folder, tmp_path / "out", clusters=True, columns=["a", "b"])
    labels = kitti / "label_02" / "0000.txt"
    with pytest.raises(UserError, match="no calibration beside the clouds"):
        job(model, folder, tmp_path / "out", boxes=str(labels))
    with pytest.raises(UserError, match="one file of labels, but there are 2 sequences"):
        job(model, kitti, tmp_path / "out", boxes=str(labels))
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1\n")
    with pytest.raises(UserError, match="line 1: 12 numbers"):
        job(model, folder, tmp_path / "out", clusters=True)
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 5 0\n")
    with pytest.raises(UserError, match="are no rotation"):
        job(model, folder, tmp_path / "out", clusters=True)
    (folder / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    for path in list(folder.glob("*.bin"))[:2]:
        path.rename(folder / f"{'ab'[path.name > '000003']}{path.name[3]}x.bin")
    shutil.copy(next(folder.glob("*.bin")), folder / "unnumbered.bin")
    with pytest.raises(UserError, match="have no numbers to join them by"):
        job(model, folder, tmp_path / "out", clusters=True)


def test_odometry_layout(kitti, tmp_path):
    """Poses of the camera become poses of the scanner, upright."""
    sequence = tmp_path / "dataset" / "sequences" / "07"
    shutil.copytree(kitti / "velodyne" / "0000", sequence / "velodyne")
    tr = "0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3"
    (sequence / "calib.txt").write_text(f"P0: {' '.join(['1'] * 12)}\nTr: {tr}\n")
    (tmp_path / "dataset" / "poses").mkdir()
    ahead = "\n".join(f"1 0 0 0 0 1 0 0 0 0 1 {2 * n}" for n in range(8))  # the camera goes along its z
    (tmp_path / "dataset" / "poses" / "07.txt").write_text(ahead)
    found = CloudReader().scan(tmp_path / "dataset", (), tmp_path / "out")
    assert {source.sequence for source in found.sources} == {"sequences/07"}
    pose = np.array(found.sources[3].details.world_from_sensor).reshape(4, 4)
    np.testing.assert_allclose(pose[:3, 3], [6, 0, 0], atol=1e-9)  # the scanner, along its x
    np.testing.assert_allclose(pose[:3, :3], np.eye(3), atol=1e-9)


def test_kitti_boxes_begin_where_their_track_does(kitti):
    labels = kitti / "label_02" / "0000.txt"
    kept = [line for line in labels.read_text().splitlines() if not line.startswith(("0 1 ", "1 1 "))]
    labels.write_text("\n".join(kept))
    sources = CloudReader().scan(kitti, (), kitti / "none").sources
    found = {box.identity: box for box in read_first_boxes(kitti / "label_02", sources)["0000"]}
    assert found["Pedestrian-1"].source.endswith("000002.bin")
    assert found["Car-0"].source.endswith("000000.bin")


# ---------------------------------------------------------------------------------------------------------- resume


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_files(kitti, model, tmp_path):
    """SIGKILL in the middle of the second sequence."""
    config, checkpoint = model(seconds=0.15)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    job(model, kitti, whole, boxes=str(kitti / "label_02"), pictures=True)
    config, checkpoint = model(seconds=0.15)

    def command(out):
        arguments = [config, checkpoint, kitti, "--out", out, "--boxes", kitti / "label_02", "--workers", 1]
        return [sys.executable, "tools/infer.py", *map(str, arguments)]

    found = {**os.environ, "PYTHONPATH": str(REPOSITORY)}  # the toy tracker
    journal = killed / "predictions.jsonl"
    process = subprocess.Popen(
        command(killed),
        cwd=REPOSITORY,
        env=found | until(journal, 11),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while lines_of(journal) < 11:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = lines_of(journal)
    assert 11 <= done < 16
    finished = subprocess.run(command(killed), cwd=REPOSITORY, env=found, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert f"{16 - done} clouds done" in finished.stdout or "were done before" in finished.stdout
    for path in sorted(p for p in whole.rglob("*") if p.is_file() and p.name != "run.json"):
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
