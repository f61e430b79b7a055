"""Videos of several cameras: folders of frames and video files give the same, and faults end in one sentence."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perception.datasets.synthetic import juggling
from perception.studio.errors import SceneError
from perception.studio.video_dataparser import MultiviewVideoDataParserConfig

SMALL = dict(cameras=4, frames=4, width=32, height=24)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for layout in juggling.LAYOUTS:
        juggling.write(root / layout, juggling.Params(**SMALL, layout=layout))
    return root


def parse(folder: Path, split: str = "train", **settings):
    return MultiviewVideoDataParserConfig(data=folder, **settings).setup().get_dataparser_outputs(split)


def test_both_layouts_give_the_same_pixels_in_any_order(sets):
    folders, videos = (parse(sets / layout).metadata["video"] for layout in juggling.LAYOUTS)
    assert folders.frames == videos.frames == 4
    assert folders.cameras == videos.cameras == ["cam00", "cam01", "cam02", "cam03"]
    for frame, camera in ((0, 1), (1, 1), (3, 1), (2, 1), (0, 3), (0, 0)):
        assert (folders.read(frame, camera) == videos.read(frame, camera)).all()
    assert (folders.read(0, 1) != folders.read(3, 1)).any()  # something moves


def test_the_test_camera_goes_by_name(sets):
    train, test = parse(sets / "folders"), parse(sets / "folders", "val")
    assert len(train.cameras) == 3
    assert test.metadata["video"].test == [0]
    other = parse(sets / "folders", "val", test_cameras=("cam_2",))
    assert other.metadata["video"].test == [2]
    with pytest.raises(SceneError, match="no camera cam07 to test on, but cam00 to cam03"):
        parse(sets / "folders", test_cameras=("cam07",))


def test_poses_are_recentred_and_scaled(sets):
    outputs = parse(sets / "folders")
    poses = outputs.metadata["llff"].poses
    assert torch.allclose(poses[:, :, 3].mean(0), torch.zeros(3), atol=1e-5)
    assert outputs.metadata["near"] == pytest.approx(4 / 3, abs=1e-5)


def test_smaller_pictures_are_averages(sets):
    whole, half = (parse(sets / "videos", downscale_factor=factor) for factor in (1, 2))
    assert half.cameras.fx[0] == pytest.approx(float(whole.cameras.fx[0]) / 2)
    small, large = half.metadata["video"].read(1, 2), whole.metadata["video"].read(1, 2)
    expected = large.reshape(12, 2, 16, 2, 3).astype(float).mean((1, 3))
    assert np.abs(small - expected).max() <= 0.51


def remake(path: Path, frames: list[tuple[int, np.ndarray]]) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264rgb", rate=30, options={"qp": "0"})
        stream.height, stream.width = frames[0][1].shape[:2]
        stream.pix_fmt = "rgb24"
        for stamp, picture in frames:
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            image.pts = stamp
            file.mux(stream.encode(image))
        file.mux(stream.encode())


def shorten(folder: Path) -> None:
    remake(folder / "cam02.mp4", [(number, np.zeros((24, 32, 3), np.uint8)) for number in range(3)])


def out_of_step(folder: Path) -> None:
    remake(folder / "cam02.mp4", [(n, np.zeros((24, 32, 3), np.uint8)) for n in (0, 1, 3, 4)])


def other_size(folder: Path) -> None:
    remake(folder / "cam02.mp4", [(n, np.zeros((24, 28, 3), np.uint8)) for n in range(4)])


def rows(count: int):
    def change(folder: Path) -> None:
        table = np.load(folder / "poses_bounds.npy")
        np.save(folder / "poses_bounds.npy", np.resize(table, (count, 17)))

    return change


def empty(folder: Path) -> None:
    for path in folder.glob("*.mp4"):
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shorten, r"cam02 has 3 frames, others 4.*--max-frames 3"),
        (out_of_step, r"cam02 is out of step: its frame 2 is at 0\.100 s, that of cam00 at 0\.067 s"),
        (other_size, r"cam02.* is 28 x 24 pixels"),
        (lambda f: (f / "cam01.mp4").unlink(), "found 3 cameras but 4 rows of poses"),
        (rows(5), "found 4 cameras but 5 rows of poses"),
        (empty, r"no frames found under .*: expected folders 0000"),
        (lambda f: (f / "cam03.mp4").write_bytes(b"no video"), r"cannot read .*cam03\.mp4"),
        (lambda f: (f / "cam00.mp4").rename(f / "cam9.mp4"), "no camera cam00 to test on"),
        (lambda f: (f / "cam03.mp4").rename(f / "cam1_1.mp4"), "nothing says which row"),
    ],
)
def test_faults_of_video_files(sets, tmp_path, harm, sentence):
    folder = Path(shutil.copytree(sets / "videos", tmp_path / "v"))
    harm(folder)
    with pytest.raises(SceneError, match=sentence):
        parse(folder)


def test_the_common_range_is_used_on_request(sets, tmp_path):
    folder = Path(shutil.copytree(sets / "videos", tmp_path / "v"))
    shorten(folder)
    assert parse(folder, max_frames=3).metadata["video"].frames == 3
    with pytest.raises(SceneError, match=r"--max-frames 30: .* has 4 frames"):
        parse(sets / "videos", max_frames=30)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda f: shutil.rmtree(f / "0002"), "frames 1 and 3, but not 2"),
        (lambda f: (f / "0002/images/cam01.png").unlink(), "0002 has no picture of cam01"),
        (lambda f: [shutil.rmtree(f / f"000{n}") for n in (1, 2, 3)], "has one frame only"),
        (rows(2), "found 4 cameras but 2 rows"),
    ],
)
def test_faults_of_folders(sets, tmp_path, harm, sentence):
    folder = Path(shutil.copytree(sets / "folders", tmp_path / "v"))
    harm(folder)
    with pytest.raises(SceneError, match=sentence):
        parse(folder)


def test_poses_in_the_frames_must_agree(sets, tmp_path):
    folder = Path(shutil.copytree(sets / "folders", tmp_path / "v"))
    table = np.load(folder / "poses_bounds.npy")
    (folder / "poses_bounds.npy").unlink()
    for number in range(4):
        np.save(folder / f"{number:04d}" / "poses_bounds.npy", table)
    assert len(parse(folder).cameras) == 3
    table[1, 3] += 0.1
    np.save(folder / "0003/poses_bounds.npy", table)
    with pytest.raises(SceneError, match="cameras that move are not supported"):
        parse(folder)


def test_the_command_makes_the_video(run_tool, tmp_path):
    small = ("--cameras", 2, "--frames", 2, "--width", 16, "--height", 16)
    done = run_tool("make_demo_data", "juggling", "--out", tmp_path / "v", *small)
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("v/*/images/*.png"))) == 4
