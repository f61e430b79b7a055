"""Runs over pyramids of images: broken files, pictures, interruptions, options, progress and memory."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image

from perception.engine.errors import UserError
from perception.inference.folder import run
from perception.inference.images import overview as overview_module
from perception.inference.loops import WriteQueue
from perception.inference.states import KeptState
from perception.inference.writing import Files
from tests.inference.conftest import make_image
from tests.inference.images.memory import peaks_of_sides
from tests.inference.images.pyramids import LIGHT, Finder, make_job, make_scene, records_of
from tests.inference.toy_work import lines_of

pytestmark = pytest.mark.xdist_group("inference")


def test_corrupt_files_are_named_and_the_others_done(pyramid_files, finder, folder, tmp_path):
    image = Image.fromarray(make_scene(400, 300, [(200, 150, 80, 20, 0.3, LIGHT)]))
    image.save(folder / "good.png")
    content = (folder / "good.png").read_bytes()
    (folder / "broken.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.tif").write_text("no image")
    report = run(make_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    assert report.finished == 1
    assert set(report.skipped) == {"broken.png", "empty.jpg", "text.tif"}
    assert "damaged" in report.skipped["broken.png"]
    assert [record["file_name"] for record in records_of(tmp_path / "out")] == ["good.png"]
    assert not (tmp_path / "out/state").exists()
    # It was known from the picture, before the model was asked.
    assert len(finder[0].windows) == len({data["factor"] for data in finder[0].windows}) + 3 == 5


def test_pictures_are_bounded_and_their_boxes_with_them(pyramid_files, finder, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(overview_module, "OVERVIEW", 300)
    Image.fromarray(make_scene(1000, 700, [(500, 350, 600, 40, 0.3, LIGHT)])).save(folder / "scene.png")
    run(make_job(pyramid_files, folder, tmp_path / "out", patch=256, gap=50))
    with Image.open(tmp_path / "out/images/scene.png") as picture:
        assert picture.size == (250, 175)
        pixels = np.asarray(picture).astype(int)
    reddish = (pixels[..., 0] > 200) & (pixels[..., 1] < 110)
    for along in (-298, 298):
        column, row = int((500 + along * np.cos(0.3)) / 4), int((350 + along * np.sin(0.3)) / 4)
        assert reddish[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7].any()
    without = make_job(pyramid_files, folder, tmp_path / "plain", patch=256, gap=50, pictures=False)
    run(without)
    assert records_of(without.out) == records_of(tmp_path / "out")
    assert not (without.out / "images").exists()


class TestInterruptions:
    @pytest.fixture
    def scenes(self, folder):
        for number in range(3):
            bars = [(300, 250, 420, 24, 0.3 * number, LIGHT), (90, 60, 50, 14, 1.0, LIGHT)]
            Image.fromarray(make_scene(640, 480, bars)).save(folder / f"{number}.png")
        return folder

    def _interrupted(self, job, monkeypatch, after):
        # States are kept as often as it goes, and images before that are written.
        monkeypatch.setattr("perception.inference.states._SHARE", 1e9)
        monkeypatch.setattr(Finder, "stop_after", after)
        with monkeypatch.context() as patched:
            patched.setattr(WriteQueue, "finished", WriteQueue.rest)
            with pytest.raises(KeyboardInterrupt):
                run(job)
        monkeypatch.setattr(Finder, "stop_after", None)

    @pytest.mark.parametrize("after", [2, 9, 21, 40])
    def test_a_run_goes_on_inside_of_an_image(self, pyramid_files, finder, scenes, tmp_path, monkeypatch, after):
        whole = make_job(pyramid_files, scenes, tmp_path / "whole", patch=160, gap=32, batch_size=2)
        run(whole)
        windows = len(finder[0].windows)
        job = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, after)
        done = len(finder[1].windows)
        assert done <= after
        run(job)
        # Nothing is run twice, but for the batch that was on its way.
        assert done + len(finder[2].windows) <= windows + 2
        assert _files(job.out) == _files(whole.out)

    def test_a_file_that_changed_is_run_from_its_start(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, 9)
        Image.fromarray(make_scene(640, 480, [(320, 240, 300, 20, 0.0, LIGHT)])).save(scenes / "0.png")
        run(job)
        fresh = make_job(pyramid_files, scenes, tmp_path / "fresh", patch=160, gap=32, batch_size=2)
        run(fresh)
        assert _files(job.out) == _files(fresh.out)

    def test_a_fresh_start_uses_nothing_of_before(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        self._interrupted(job, monkeypatch, 9)
        assert list((job.out / "state").iterdir())
        other = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=48, batch_size=2)
        with pytest.raises(UserError, match="gap 32 there, 48 now"):
            run(other)
        afresh = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=48, batch_size=2, overwrite=True)
        run(afresh)
        assert len(finder[-1].windows) == sum(record["tiles"] for record in records_of(job.out))
        assert not (job.out / "state").exists()

    def test_a_state_that_outlived_its_image_goes(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        job = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        remove = KeptState.remove
        monkeypatch.setattr(KeptState, "remove", lambda self: None)
        run(job)
        assert list((job.out / "state").iterdir())
        monkeypatch.setattr(KeptState, "remove", remove)
        (scenes / "3.png").write_bytes((scenes / "2.png").read_bytes())
        run(job)
        assert not (job.out / "state").exists()

    def test_a_killed_run_ends_in_the_same_bytes(self, pyramid_files, finder, scenes, tmp_path, monkeypatch):
        whole = make_job(pyramid_files, scenes, tmp_path / "whole", patch=160, gap=32, batch_size=2)
        run(whole)
        job = make_job(pyramid_files, scenes, tmp_path / "out", patch=160, gap=32, batch_size=2)
        journal, state = job.out / "predictions.jsonl", job.out / KeptState(Files(job.out), "1.png")._name
        child = os.fork()
        if child == 0:
            predict = Finder.predict

            def slow(*arguments):
                # Within the second image, and until it is killed.
                while lines_of(journal) == 1 and state.exists():
                    time.sleep(1)
                time.sleep(0.1)
                return predict(*arguments)

            monkeypatch.setattr(Finder, "predict", slow)
            run(job)
            os._exit(0)
        while not (lines_of(journal) == 1 and state.exists()):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert lines_of(journal) == 1
        resumed = run(job)
        assert (resumed.finished, resumed.reused) == (2, 1)
        tiles = [record["tiles"] for record in records_of(job.out)]
        assert len(finder[-1].windows) < sum(tiles[1:])
        assert _files(job.out) == _files(whole.out)


def _files(out):
    """What a run has left, but for where it was started."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


class TestCommandLine:
    def test_options_and_outputs(self, pyramid_files, run_tool):
        shown = run_tool("infer", pyramid_files.config, "--help").out
        for words in ("--patch SIZE", "--gap PIXELS", "--levels NUMBER", "--no-fuse-at-test", "--bands", "Task1_CLASS"):
            assert words in shown
        assert "--overlap PIXELS" not in shown

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--patch", 16), "patch 16 is below 32 pixels"),
            (("--patch", 128, "--gap", 128), "below the patch's 128, not 128"),
            (("--gap", -1), "the gap must be at least 0"),
            (("--fuse-at-test",), "needs a model that fuses levels"),
        ],
    )
    def test_nonsense_is_refused(self, pyramid_files, folder, tmp_path, run_tool, options, words):
        Image.fromarray(make_image(1, 60, 50)).save(folder / "scene.png")
        files = pyramid_files
        refused = run_tool("infer", files.config, files.checkpoint, folder, "--out", tmp_path / "out", *options)
        assert refused.code == 1
        assert words in refused.err

    def test_a_real_model_from_the_command_line(self, pyramid_files, folder, tmp_path, run_tool):
        Image.fromarray(make_image(1, 400, 300)).save(folder / "scene.png")
        files, out = pyramid_files, tmp_path / "out"
        done = run_tool("infer", files.config, files.checkpoint, folder, "--out", out, "--score-thr", 0, "--levels", 2)
        assert done.code == 0, done.err
        (record,) = records_of(out)
        assert [level["factor"] for level in record["levels"]] == [1, 2]
        assert len(record["detections"]) > 12
        assert sum(level["detections"] for level in record["levels"]) == len(record["detections"])
        assert json.loads((out / "run.json").read_text())["levels"] == 2

    def test_models_of_upright_boxes_are_refused(self, folder, tmp_path, retinanet, run_tool):
        config = tmp_path / "upright.py"
        config.write_text(f'_base_ = "{retinanet.config}"\nfolder_kind = dict(type="PyramidImages", patch=64, gap=8)\n')
        Image.fromarray(make_image(1, 90, 80)).save(folder / "scene.png")
        refused = run_tool("infer", config, retinanet.checkpoint, folder, "--out", tmp_path / "out", "--score-thr", 0)
        assert refused.code == 1
        assert "takes detectors of rotated boxes; this model yields upright boxes" in refused.err


def test_a_run_in_tiles_is_not_continued_as_a_pyramid(pyramid_files, rotated_retinanet, finder, folder, tmp_path):
    Image.fromarray(make_scene(300, 200, [(100, 100, 60, 20, 0.2, LIGHT)])).save(folder / "scene.png")
    run(make_job(pyramid_files, folder, tmp_path / "out"))
    with pytest.raises(UserError, match="other settings"):
        run(make_job(rotated_retinanet, folder, tmp_path / "out"))


def test_progress_counts_windows(pyramid_files, finder, folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("perception.inference.progress.Progress.__init__.__defaults__", (None, 0.0))
    Image.fromarray(make_scene(640, 480, [(300, 250, 420, 24, 0.3, LIGHT)])).save(folder / "scene.png")
    run(make_job(pyramid_files, folder, tmp_path / "out", patch=160, gap=32, batch_size=2))
    lines = capfd.readouterr().err.splitlines()
    counts = [re.search(r"window (\d+) of (\d+), reduced by (\d+), [\d.]+ windows/s", line) for line in lines]
    counts = [tuple(map(int, match.groups())) for match in counts if match]
    (record,) = records_of(tmp_path / "out")
    assert counts[-1] == (record["tiles"], record["tiles"], 4)
    assert {factor for _, _, factor in counts} == {1, 2, 4}


@pytest.mark.slow
def test_memory_does_not_depend_on_the_image(pyramid_files, tmp_path):
    peaks = peaks_of_sides(pyramid_files.config, pyramid_files.checkpoint, tmp_path, "--patch", "1024", "--gap", "200")
    (record,) = records_of(tmp_path / "out16384")
    assert [level["windows"] for level in record["levels"]] == [400, 100, 25, 9, 1]
    assert peaks[16384] < 2e9
    assert peaks[16384] < peaks[4096] + 0.65e9  # the image has 805 MB
