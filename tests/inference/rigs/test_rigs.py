"""Folders of rigs: both layouts, frames of reference, the past, broken images, and going on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from perception.datasets.driving.infos import CAMERAS, CLASSES
from perception.engine.errors import UserError
from perception.engine.page import pictures
from perception.evaluation.nuscenes_detection import evaluate
from perception.inference.rigs.options import Choice
from perception.inference.rigs.reader import RigReader
from tests.browser import opened_browser
from tests.conftest import REPOSITORY
from tests.inference.toy_work import lines_of, until


def lines(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def places(line, count=6):
    """Where the cameras of a frame were found, the latest frame's first."""
    return np.array([box["box"][:3] for box in line["boxes"]]).reshape(-1, count, 3)


def change(path, alter):
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------------------------------------- frames of reference


def test_boxes_are_in_the_frames_that_files_name(rig, job, tmp_path):
    report = job(rig)
    assert (report.finished, report.skipped) == (6, {})
    cameras = json.loads((rig / "rig.json").read_text())["cameras"]
    poses = json.loads((rig / "poses.json").read_text())["frames"]
    expected = np.array([cameras[name]["ego_from_camera"] for name in CAMERAS])[:, :3, 3]
    results = json.loads((tmp_path / "out" / "results_nusc.json").read_text())
    assert results["meta"]["frame"] == "global"
    for line in lines(tmp_path / "out"):
        assert line["frame"] == "ego"
        np.testing.assert_allclose(places(line)[0], expected, atol=1e-5)
        assert [box["name"] for box in line["boxes"]] == list(CLASSES[:6])
        pose = np.array(poses[line["token"]]["global_from_ego"])
        rows = {row["detection_name"]: row for row in results["results"][line["token"]]}
        for name, place in zip(CLASSES, expected):
            np.testing.assert_allclose(rows[name]["translation"], pose[:3, :3] @ place + pose[:3, 3], atol=1e-4)
            assert rows[name]["size"] == [1.0, 2.0, 1.5]
        # What is 3 to the right and 4 ahead of the LiDAR is 4 ahead of the vehicle, and 3 to its right.
        first = line["boxes"][0]
        assert first["velocity"] == pytest.approx([4.0, -3.0])
        assert first["box"][6] == pytest.approx(0.5 - np.pi / 2)
        assert rows[CLASSES[0]]["velocity"] == pytest.approx((pose[:2, :2] @ [4.0, -3.0]).tolist(), abs=1e-4)


def test_the_frame_of_detection_may_be_stated(rig, job, tmp_path):
    """The same boxes come out in the vehicle's frame, wherever the model has its own."""
    mount = [[0.0, 1, 0, 1.2], [-1, 0, 0, 0.1], [0, 0, 1, 2.0], [0, 0, 0, 1]]
    change(rig / "rig.json", lambda content: content.update(ego_from_lidar=mount))
    job(rig)
    cameras = json.loads((rig / "rig.json").read_text())["cameras"]
    expected = np.array([cameras[name]["ego_from_camera"] for name in CAMERAS])[:, :3, 3]
    np.testing.assert_allclose(places(lines(tmp_path / "out")[0])[0], expected, atol=1e-5)


def test_order_of_cameras_in_the_file_does_not_matter(rig, job, tmp_path):
    job(rig, "first")
    change(rig / "rig.json", lambda content: content.update(cameras=dict(reversed(content["cameras"].items()))))
    job(rig, "second")
    assert (tmp_path / "first" / "results_nusc.json").read_bytes() == (
        tmp_path / "second" / "results_nusc.json"
    ).read_bytes()


def test_cameras_of_other_names_and_numbers(rig, job, tmp_path):
    names = [f"cam{k}" for k in range(6)]

    def rename(content):
        content["cameras"] = {new: content["cameras"][old] for new, old in zip(names, CAMERAS)}

    change(rig / "rig.json", rename)
    for frame in (rig / "frames").iterdir():
        for new, old in zip(names, CAMERAS):
            (frame / f"{old}.jpg").rename(frame / f"{new}.jpg")
    with pytest.raises(UserError, match=r"has no CAM_FRONT; .* the file has cam0, cam1.*--cameras"):
        job(rig)
    job(rig, cameras=names)
    assert places(lines(tmp_path / "out")[0]).shape == (1, 6, 3)
    with pytest.raises(UserError, match="has places for 6 cameras, --cameras names 5"):
        job(rig, "five", cameras=names[:5])
    with pytest.raises(UserError, match="names a camera twice"):
        job(rig, "twice", cameras=[*names[:5], "cam0"])
    # A rig of five needs a model of five; others of its cameras are left aside only if that is asked for.
    job(rig, "fewer", cameras=names[:5], settings={"num_cams": 5})
    change(rig / "rig.json", lambda content: content["cameras"].pop("cam5"))
    with pytest.raises(UserError, match="has no cam5"):
        job(rig, "gone", cameras=names)


def test_images_of_one_rig_may_differ_in_size_only_as_far_as_the_recipe_knows(rig, job):
    """One camera is taller than the recipe's crop is for: each frame says so."""

    def taller(content):
        content["cameras"]["CAM_BACK"].update(height=48)

    change(rig / "rig.json", taller)
    for frame in (rig / "frames").iterdir():
        Image.open(frame / "CAM_BACK.jpg").resize((64, 48)).save(frame / "CAM_BACK.jpg")
    report = job(rig)
    assert report.finished == 0
    assert all("CAM_BACK.jpg is 64 x 48, but the recipe crops images of 64 x 36" in s for s in report.skipped.values())


# -------------------------------------------------------------------------------------------------------- the past


def test_earlier_frames_are_where_the_vehicle_was(rig, job, tmp_path):
    """Cameras of the frame before are found behind the vehicle, by its poses; scenes do not look into each other."""
    job(rig, settings={"frames": (-2, -1, 0)})
    cameras = json.loads((rig / "rig.json").read_text())["cameras"]
    poses = json.loads((rig / "poses.json").read_text())["frames"]
    expected = np.array([cameras[name]["ego_from_camera"] for name in CAMERAS])[:, :, 3]
    found = lines(tmp_path / "out")
    assert [line["looked_at"] for line in found] == [[0], [-1, 0], [-2, -1, 0]] * 2
    for index, line in enumerate(found):
        now = np.linalg.inv(poses[line["token"]]["global_from_ego"])
        for back, seen in enumerate(places(line)):
            then = np.array(poses[found[index - back]["token"]]["global_from_ego"])
            np.testing.assert_allclose(seen, (expected @ (now @ then).T)[:, :3], atol=1e-4)
    moved = places(found[1])[1] - places(found[1])[0]
    assert np.linalg.norm(moved, axis=1).min() > 0.5


def test_without_poses_there_is_no_past_which_is_said(rig, job, tmp_path, capsys):
    (rig / "poses.json").unlink()
    report = job(rig, settings={"frames": (-1, 0)})
    assert report.finished == 6
    assert "no poses of the vehicle: earlier frames are not looked at" in capsys.readouterr().err
    assert {tuple(line["looked_at"]) for line in lines(tmp_path / "out")} == {(0,)}
    results = json.loads((tmp_path / "out" / "results_nusc.json").read_text())
    assert results["meta"]["frame"] == "ego"
    job(rig, "alone")  # a model of one frame needs no poses
    assert "poses" not in capsys.readouterr().err


def test_poses_that_cannot_be(rig, job, capsys):
    first, second = sorted(json.loads((rig / "poses.json").read_text())["frames"])[:2]

    def fast(content):
        content["frames"][second]["global_from_ego"][0][3] += 500

    change(rig / "poses.json", fast)
    with pytest.raises(UserError, match=rf"from {first} to {second} the vehicle would drive \d+ m/s"):
        job(rig)

    def still(content):
        for pose in content["frames"].values():
            pose["global_from_ego"] = np.eye(4).tolist()

    change(rig / "poses.json", still)
    job(rig, settings={"frames": (-1, 0)})
    assert capsys.readouterr().err.count("all poses of the vehicle are the same") == 2

    def flat(content):
        content["frames"][first]["global_from_ego"] = [1.0, 2.0, 0.3]

    change(rig / "poses.json", flat)
    with pytest.raises(UserError, match="Expected `array`"):
        job(rig, "flat")


def test_frames_are_joined_to_poses_by_name(rig, job, tmp_path):
    """A frame without a pose is named and left out; the past keeps its distance."""
    names = sorted(json.loads((rig / "poses.json").read_text())["frames"])
    change(rig / "poses.json", lambda content: content["frames"].pop(names[0]))
    shutil.move(rig / "frames" / names[4], tmp_path / "moved")
    report = job(rig, settings={"frames": (-1, 0)})
    assert report.skipped == {names[0]: "poses.json has no pose for it"}
    found = lines(tmp_path / "out")
    assert [line["token"] for line in found] == [names[k] for k in (1, 2, 3, 5)]


def test_frames_of_another_rate_are_remarked(rig, job, capsys):
    def faster(content):
        start = 1_600_000_000_000_000
        for pose in content["frames"].values():
            pose["timestamp"] = start + (pose["timestamp"] - start) // 5
            pose["global_from_ego"][0][3] /= 5

    change(rig / "poses.json", faster)
    job(rig, settings={"frames": (-1, 0)})
    assert "frames are 0.10 s apart; models that look back were trained on 0.5 s" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- broken frames


def test_broken_images_are_named_and_skipped(rig, job, tmp_path):
    frames = sorted((rig / "frames").iterdir())
    (frames[0] / "CAM_BACK.jpg").unlink()
    data = (frames[1] / "CAM_FRONT.jpg").read_bytes()
    (frames[1] / "CAM_FRONT.jpg").write_bytes(data[: len(data) // 2])
    Image.new("RGB", (64, 36)).save(frames[3] / "CAM_BACK_LEFT.jpg")
    Image.open(frames[4] / "CAM_FRONT.jpg").resize((32, 18)).save(frames[4] / "CAM_FRONT.jpg")
    Image.open(frames[5] / "CAM_FRONT.jpg").save(frames[5] / "CAM_FRONT.png")
    report = job(rig, settings={"frames": (-2, 0)})
    reasons = report.skipped
    assert set(reasons) == {frames[k].name for k in (0, 1, 3, 4, 5)}
    assert reasons[frames[0].name].startswith("CAM_BACK missing")
    assert "CAM_FRONT" in reasons[frames[1].name]
    assert reasons[frames[3].name] == "CAM_BACK_LEFT is black, every pixel of it"
    assert "32 x 18, but its calibration is for 64 x 36: resized images need other" in reasons[frames[4].name]
    assert reasons[frames[5].name] == "there are several images of CAM_FRONT"
    (line,) = [line for line in lines(tmp_path / "out") if "boxes" in line]
    assert (line["token"], line["looked_at"]) == (frames[2].name, [0])  # two frames before, one is missing
    listed = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert [entry["file_name"] for entry in listed] == sorted(reasons)


def test_pictures_show_the_cameras_and_the_view_from_above(rig, job, tmp_path):
    job(rig, pictures=True, score_thr=0.01)
    paths = sorted((tmp_path / "out" / "images").glob("*.jpg"))
    assert len(paths) == 6
    pixels = np.asarray(Image.open(paths[0]).convert("RGB")).astype(int)
    assert pixels.shape[0] == 2 * round(400 * 36 / 64)
    assert pixels.shape[1] == 3 * 400 + pixels.shape[0]
    above = pixels[:, 1200:]
    assert (np.ptp(above, axis=2) > 80).any()


def test_the_page_shows_boxes_on_the_cameras_and_in_space(rig, job, tmp_path):
    job(rig, pictures=True, score_thr=0.01)
    out = tmp_path / "out"
    name = lines(out)[0]["file_name"]
    text = (out / pictures.scene_file(name)).read_text()
    scene = json.loads(text.partition(", ")[2].rstrip(")\n"))
    assert scene["size"] == [3 * 640, 2 * 360]
    assert len(scene["boxes"]) == len(lines(out)[0]["boxes"]) > 0
    source = next(one for one in RigReader(Choice()).scan(rig, (), out).sources if one.name == name)
    matched = []
    for camera in source.details.cameras:
        # Ten metres along the axis of each camera is where its principal point lies on the sheet.
        ahead = np.array(camera.lidar_from_camera) @ (0, 0, 10, 1)
        scale = 640 / camera.width
        for number, placed in enumerate(scene["cameras"]):
            u, v, depth = np.reshape(placed["matrix"], (3, 4)) @ ahead
            left, top = placed["at"][:2]
            wanted = left + camera.intrinsics[0][2] * scale, top + camera.intrinsics[1][2] * scale
            if depth > 0 and max(abs(u / depth - wanted[0]), abs(v / depth - wanted[1])) < 10:
                assert abs(depth - 10) < 0.01
                matched.append(number)
    assert sorted(matched) == list(range(6))
    with opened_browser() as browser:
        browser.get(f"{(out / 'index.html').as_uri()}#{quote(name)}")
        over = time.time() + 120
        while len(browser.find_elements("css selector", "#panes canvas")) < 2:
            assert time.time() < over
        captions = [one.text for one in browser.find_elements("css selector", ".caption")]
        assert captions == ["cameras", "space; the corner at the sensor is 2 m long"]
        assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


# --------------------------------------------------------------------------------------------------------- nuScenes


def test_nuscenes_root(driving_folder, job, tmp_path):
    settings = {"width": 96, "height": 54}
    report = job(driving_folder, "val", split="mini_val", settings=settings)
    assert report.finished == 3
    scores = evaluate(tmp_path / "val" / "results_nusc.json", driving_folder, "v1.0-mini", "mini_val")
    assert 0 <= scores["mAP"] < 0.1
    report = job(driving_folder, "all", settings={**settings, "frames": (-1, 0)})
    assert report.finished == 6
    found = lines(tmp_path / "all")
    assert [line["looked_at"] for line in found] == [[0], [-1, 0], [-1, 0]] * 2
    assert found[0]["file_name"] == f"{found[0]['scene']}/000"
    scene = found[3]["scene"]
    job(driving_folder, "one", scenes=[scene], settings=settings)
    assert {line["scene"] for line in lines(tmp_path / "one")} == {scene}
    job(driving_folder, "some", patterns=("*/001",), settings={**settings, "frames": (-1, 0)})
    assert [line["looked_at"] for line in lines(tmp_path / "some")] == [[0]] * 2
    with pytest.raises(UserError, match="has no scene scene-9; it has scene-"):
        job(driving_folder, "none", scenes=["scene-9"], settings=settings)
    with pytest.raises(UserError, match=r"has no tables of version v1\.0-test: it has v1\.0-mini"):
        job(driving_folder, "none", version="v1.0-test", settings=settings)
    with pytest.raises(UserError, match="nuScenes has no split evening"):
        job(driving_folder, "none", split="evening", settings=settings)


def test_images_missing_from_nuscenes(driving_folder, job, tmp_path):
    root = shutil.copytree(driving_folder, tmp_path / "nuscenes")
    gone = sorted((root / "samples" / "CAM_BACK_RIGHT").iterdir())[1]
    gone.unlink()
    report = job(root, settings={"width": 96, "height": 54, "frames": (-1, 0)})
    (reason,) = report.skipped.values()
    assert "CAM_BACK_RIGHT missing" in reason
    assert gone.name in reason
    assert [line["looked_at"] for line in lines(tmp_path / "out")] == [[0], [0], [0], [-1, 0], [-1, 0]]


# ----------------------------------------------------------------------------------------------------------- resume


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_files(rig, job, model, tmp_path):
    """SIGKILL within the second scene, of a model that looks back."""
    settings = {"frames": (-2, -1, 0), "seconds": 0.4}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    job(rig, "whole", pictures=True, score_thr=0.01, settings=settings)
    config, checkpoint = model(**settings)
    command = [sys.executable, "tools/infer.py", config, checkpoint, rig, "--out", killed, "--score-thr", 0.01]
    command = [*map(str, command), "--workers", "1"]
    found = {**os.environ, "PYTHONPATH": str(REPOSITORY)}  # the toy detector
    journal = killed / "predictions.jsonl"
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=found | until(journal, 4), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while lines_of(journal) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 4 <= lines_of(journal) < 6
    finished = subprocess.run(command, cwd=REPOSITORY, env=found, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "were done before" in finished.stdout
    for path in sorted(p for p in whole.rglob("*") if p.is_file() and p.name != "run.json"):
        assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
