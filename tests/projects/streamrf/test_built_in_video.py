"""The built-in video, as the method's data parser reads it."""

from perception.studio.video_dataparser import MultiviewVideoDataParserConfig


def test_it_is_made_and_read(run_tool, tmp_path):
    small = ("--cameras", 4, "--frames", 2, "--width", 24, "--height", 16)
    done = run_tool("make_demo_data", "juggling", "--out", tmp_path / "video", *small)
    assert done.code == 0, done.err
    parser = MultiviewVideoDataParserConfig(data=tmp_path / "video").setup()
    outputs = {split: parser.get_dataparser_outputs(split) for split in ("train", "test")}
    video = outputs["train"].metadata["video"]
    assert (video.frames, len(video.train), list(video.test)) == (2, 3, [0])
    assert len(outputs["train"].cameras) == 3
    assert len(outputs["test"].cameras) == 1
    first, second = (video.read(frame, 0) for frame in (0, 1))
    assert first.shape == (16, 24, 3)
    assert (first != second).any()  # things move
