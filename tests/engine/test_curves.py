"""Curves from the logs of trainings: runs that follow each other, broken lines, interruptions."""

import json
import os
import signal

import pytest
from PIL import Image

from perception.engine.curves import curves_of, draw_curves, read_curves


def write_log(folder, name, records, tail=""):
    log = folder / name / "vis_data" / "scalars.json"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{json.dumps(record)}\n" for record in records) + tail)


def train(step, loss, **more):
    return {"lr": 0.1 / step, "loss": loss, "loss_box": loss / 2, "time": 1.0, "iter": step, "step": step, **more}


def test_a_resumed_run_continues_the_curves_and_replaces_what_was_lost(tmp_path):
    first = [train(2, 8.0), train(4, 6.0), {"coco/AP": 0.1, "step": 4}, train(6, 5.0), {"coco/AP": 0.9, "step": 6}]
    write_log(tmp_path, "20260101_000000", first, tail='{"lr": 0.1, "lo')
    write_log(tmp_path, "20260102_000000", [train(6, 4.0), {"coco/AP": 0.2, "step": 6}, train(8, 3.0)])
    curves = read_curves(tmp_path)
    assert curves.training["loss"] == {2: 8.0, 4: 6.0, 6: 4.0, 8: 3.0}
    assert curves.metrics == {"coco/AP": {4: 0.1, 6: 0.2}}
    assert set(curves.training) == {"lr", "loss", "loss_box"}
    assert not curves.by_epoch


def test_a_run_from_the_start_replaces_all(tmp_path):
    write_log(tmp_path, "20260101_000000", [train(2, 8.0, loss_old=1.0), train(4, 6.0)])
    write_log(tmp_path, "20260102_000000", [train(2, 7.0)])
    assert read_curves(tmp_path).training == {"lr": {2: 0.05}, "loss": {2: 7.0}, "loss_box": {2: 3.5}}


def test_runs_that_count_epochs(tmp_path):
    write_log(tmp_path, "20260101_000000", [train(50, 2.0, epoch=1), {"mIoU": 31.0, "step": 1}])
    curves = read_curves(tmp_path)
    assert curves.by_epoch
    assert curves.metrics == {"mIoU": {1: 31.0}}


def test_picture_has_a_panel_for_what_there_is(tmp_path):
    assert draw_curves(tmp_path) is None
    write_log(tmp_path, "20260101_000000", [train(2, 8.0), train(4, float("nan"))])
    assert draw_curves(tmp_path) == tmp_path / "curves.png"
    with Image.open(tmp_path / "curves.png") as image:
        lower = image.height
    write_log(tmp_path, "20260102_000000", [{"coco/AP": 0.3, "coco/AP_l": -1.0, "step": 4}])
    draw_curves(tmp_path)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.height == pytest.approx(lower * 1.5, abs=2)


@pytest.mark.parametrize("end", ["whole", "ctrl-c", "sigterm", "error"])
def test_drawn_however_a_training_ends(tmp_path, capsys, end):
    handler = signal.getsignal(signal.SIGTERM)

    def training():
        with curves_of(tmp_path, terminable=True):
            write_log(tmp_path, "20260101_000000", [train(2, 8.0)])
            if end == "ctrl-c":
                raise KeyboardInterrupt
            if end == "sigterm":
                os.kill(os.getpid(), signal.SIGTERM)
            if end == "error":
                raise ZeroDivisionError

    expected = {"ctrl-c": KeyboardInterrupt, "sigterm": SystemExit, "error": ZeroDivisionError}.get(end)
    if expected is None:
        training()
    else:
        with pytest.raises(expected) as stopped:
            training()
        if end == "sigterm":
            assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert f"curves: {tmp_path}/curves.png" in capsys.readouterr().out
    assert (tmp_path / "curves.png").is_file()
