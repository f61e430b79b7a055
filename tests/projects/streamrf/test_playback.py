"""`streamrf render` shows every frame of a stream along a path and from the cameras of a video."""

import av
import pytest
from PIL import Image

from perception.engine.errors import UserError
from perception.studio.camera_paths import write_camera_path
from perception.studio.video_dataparser import MultiviewVideoDataParserConfig
from projects.streamrf import cli
from tests.projects.streamrf.test_container import FRAMES, write
from tests.projects.streamrf.videos import HEIGHT, WIDTH, write_video


def test_a_path_and_a_camera_are_rendered(tmp_path, capsys):
    write(tmp_path / "s")
    data = write_video(tmp_path / "v", FRAMES)
    outputs = MultiviewVideoDataParserConfig(data=data).setup().get_dataparser_outputs("train")
    write_camera_path(tmp_path / "path.json", outputs.cameras, 1.0)
    path = ["--camera-path", str(tmp_path / "path.json")]
    cli.run(["render", str(tmp_path / "s"), *path, "--out", str(tmp_path / "film.mp4")])
    with av.open(str(tmp_path / "film.mp4")) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == len(outputs.cameras)
    assert pictures[0].shape == (HEIGHT, WIDTH, 3)
    cli.run(["render", str(tmp_path / "s"), "--data", str(data), "--out", str(tmp_path / "frames")])
    assert len(list((tmp_path / "frames").glob("*.png"))) == FRAMES
    assert Image.open(tmp_path / "frames/00000.png").size == (WIDTH, HEIGHT)
    assert "frame 3: " in capsys.readouterr().out
    short = write_video(tmp_path / "short", 2)
    with pytest.raises(UserError, match=r"has 4 frames, the video .* only 2"):
        cli.run(["render", str(tmp_path / "s"), "--data", str(short), "--out", str(tmp_path / "x")])
