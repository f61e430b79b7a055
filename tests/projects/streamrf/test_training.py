"""The method on a small video: what a run leaves, what a killed one loses, what its stream decodes to."""

import json
import shutil
import signal
import socket
import time
from threading import Lock
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerElement

from perception.studio.errors import SceneError
from projects.streamrf.container import StreamReader
from projects.streamrf.delta import StreamError
from projects.streamrf.field import grid_of, state_of
from projects.streamrf.rendering import render_camera
from tests.projects.streamrf.deaths import BASE, FIELD, FILES, FIRST_PILOT, STEPS, die
from tests.projects.streamrf.videos import FRAMES, make_trainer, picture, small_config, train, write_video

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("streamrf")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    return train(small_config(data, tmp_path_factory.mktemp("runs")))


def stream_bytes(run):
    folder = run / "stream"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def checkpoints(run):
    return run / "nerfstudio_models"


def test_a_run_leaves_its_stream(finished):
    reader = StreamReader(finished.base_dir / "stream")
    assert reader.frames == FRAMES
    assert finished.config.max_num_iterations == BASE + FIRST_PILOT + (FRAMES - 1) * 2 * FIELD
    lines = [json.loads(line) for line in (finished.base_dir / "frames.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert all(line["changed"] > 0 and line["bytes"] > 0 for line in lines[1:])
    for line in lines[1:]:
        parts = [line[f"{part}_seconds"] for part in ("pilot", "training", "coding", "saving")]
        assert min(parts) > 0
        assert line["seconds"] == pytest.approx(sum(parts))
        assert 0.01 < line["changed_pixels"] < 0.15


@pytest.mark.parametrize(("stride", "warned"), [(1, False), (5, True)])
def test_motion_between_frames_is_told(tmp_path, capsys, stride, warned):
    data = write_video(tmp_path / "video", frames=2, moment=lambda frame: stride * frame)
    trainer = train(small_config(data, tmp_path / "run", use_pilot=False))
    said = capsys.readouterr().out
    line = json.loads((trainer.base_dir / "frames.jsonl").read_text().splitlines()[1])
    pictures = [np.stack([picture(stride * frame, camera) for camera in range(1, 6)]) for frame in (0, 1)]
    change = np.abs(pictures[1].astype(int) - pictures[0])
    assert line["mean_change"] == pytest.approx(change.mean() / 255, rel=0.25)  # of every seventh pixel
    assert line["changed_pixels"] == pytest.approx((change.max(-1) > 25).mean(), rel=0.25)
    assert ("vanishes or smears" in " ".join(said.split())) == warned


def test_the_viewer_shows_any_frame(finished, monkeypatch):
    _, pipeline, _, _ = eval_setup(finished.base_dir / "config.yml", test_mode="test")
    model, folder = pipeline.model, finished.base_dir / "stream"
    [(path, slider)] = parse_object(pipeline, ViewerElement, "Custom Elements")
    assert (path, slider.min, slider.max, slider.value) == ("Custom Elements/frame_slider", 0, FRAMES - 1, FRAMES - 1)
    camera = pipeline.datamanager.eval_dataset.cameras[:1]
    for frame in (0, 2, 1):
        slider.value = frame
        slider.cb_hook(slider)
        expected = StreamReader(folder).decode(frame)
        shown = state_of(model.grid)
        assert all(torch.equal(getattr(shown, name), getattr(expected, name)) for name in ("active", "density", "sh"))
        rendered = model.get_outputs_for_camera(camera)["rgb"]
        assert torch.equal(rendered, render_camera(grid_of(expected), model.rendering, camera)["rgb"])
        assert int(model.frame) == frame

    def damaged(frame):
        raise StreamError("frame 2 is damaged")

    monkeypatch.setattr(slider._reader, "decode", damaged)
    slider.show(2)
    assert int(model.frame) == 1


def test_the_viewer_serves_the_slider(finished):
    config, pipeline, _, _ = eval_setup(finished.base_dir / "config.yml", test_mode="test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config.viewer.websocket_port = free.getsockname()[1]
    config.viewer.websocket_host = "127.0.0.1"
    viewer = Viewer(config.viewer, finished.base_dir / "viewer.log", config.data, pipeline, train_lock=Lock())
    try:
        with urlopen(f"http://127.0.0.1:{config.viewer.websocket_port}", timeout=120) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read()
        [slider] = [element for _, element in viewer.viewer_elements if element.name == "Frame"]
        assert slider.gui_handle.value == FRAMES - 1
        slider.gui_handle.value = 0  # runs the callback
        deadline = time.monotonic() + 120
        while int(pipeline.model.frame) != 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        first = StreamReader(finished.base_dir / "stream").decode(0)
        assert torch.equal(state_of(pipeline.model.grid).sh, first.sh)
    finally:
        viewer.viser_server.stop()


def test_the_decoded_stream_is_the_live_model(finished):
    model = finished.pipeline.model
    decoded = StreamReader(finished.base_dir / "stream").decode(FRAMES - 1)
    live = state_of(model.grid)
    for name in ("active", "density", "sh"):
        assert torch.equal(getattr(decoded, name), getattr(live, name)), name
    camera = finished.pipeline.datamanager.eval_dataset.cameras[:1]
    shown = model.get_outputs_for_camera(camera)
    again = render_camera(grid_of(decoded), model.rendering, camera)
    for name in ("rgb", "accumulation", "depth"):
        torch.testing.assert_close(again[name], shown[name], atol=1e-5, rtol=1e-5)


def test_optimisers_hold_the_fields_of_the_last_frame(finished):
    model = finished.pipeline.model
    for group, parameters in model.get_param_groups().items():
        assert finished.optimizers.optimizers[group].param_groups[0]["params"][0] is parameters[0], group


@pytest.mark.parametrize("death", [*STEPS, *FILES])
def test_a_killed_run_goes_on_to_the_same_bytes(finished, data, tmp_path, death):
    assert die(data, tmp_path, death) == -signal.SIGKILL
    config = small_config(data, tmp_path)
    config.timestamp = "later"
    folder = checkpoints(config.output_dir / "run" / config.method_name / "now")
    assert folder.is_dir(), "it lost more than what was in flight"
    config.load_dir = folder
    resumed = train(config)
    assert stream_bytes(resumed.base_dir) == stream_bytes(finished.base_dir)
    first, second = finished.pipeline.model.state_dict(), resumed.pipeline.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_delta_is_on_disk_before_the_next_frame_is_trained(data, tmp_path):
    trainer = make_trainer(small_config(data, tmp_path))
    shown = []
    show = trainer.pipeline.datamanager.show_frame

    def show_frame(number):
        stream = trainer.base_dir / "stream"
        shown.append((number, StreamReader(stream).frames if stream.is_dir() else 0))
        show(number)

    trainer.pipeline.datamanager.show_frame = show_frame
    trainer.train()
    assert shown == [(0, 0), (0, 1), (1, 1), (1, 1), (2, 2), (2, 2)]


@pytest.mark.parametrize("variant", [{"use_pilot": False}, {"band": True}, {"half": False}, {"sh_step": 2.0**-7}])
def test_variants_run(data, tmp_path, variant):
    trainer = train(small_config(data, tmp_path, frames=2, **variant))
    decoded = StreamReader(trainer.base_dir / "stream").decode(1)
    live = state_of(trainer.pipeline.model.grid)
    assert torch.equal(decoded.sh, live.sh)
    assert torch.equal(decoded.active, live.active)
    if "sh_step" in variant:
        assert torch.equal(decoded.sh, (decoded.sh / 2.0**-7).round() * 2.0**-7)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 9}, "the video has 3"),
        ({"pilot_factor": 0.5}, "pilot-factor must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint-every must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_first(data, tmp_path, options, sentence):
    with pytest.raises(SceneError, match=sentence):
        make_trainer(small_config(data, tmp_path, **options))


def test_a_damaged_delta_is_one_sentence(finished, tmp_path):
    stream = tmp_path / "stream"
    shutil.copytree(finished.base_dir / "stream", stream)
    last = max((path for path in stream.iterdir()), key=lambda path: path.name)
    last.write_bytes(last.read_bytes()[:-7])
    with pytest.raises(StreamError):
        StreamReader(stream).decode(FRAMES - 1)
