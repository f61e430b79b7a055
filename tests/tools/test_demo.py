"""tools/demo.py, with a smaller model and less data: three tools in turn, and what it does when it is repeated."""

import runpy

import pytest

from tests.conftest import REPOSITORY
from tests.projects.rank_detr.demo import tiny_config


@pytest.mark.slow
def test_the_demo(shapes_folder, tmp_path, monkeypatch, capsys):
    data, work = tmp_path / "shapes", tmp_path / "work"
    config = tmp_path / "tiny.py"
    tiny_config(data, work, train_cfg__max_iters=2, default_hooks__checkpoint__interval=2).dump(config)
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("sys.argv", ["tools/demo.py", "--data", str(data), "--work-dir", str(work)])
    demo = runpy.run_path("tools/demo.py")["main"]
    demo.__globals__.update(CONFIG=str(config), NUM_TRAIN=6, NUM_VAL=2)
    demo()
    shown = capsys.readouterr().out
    assert [line[:5] for line in shown.splitlines() if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "AP50" in shown
    assert len(list(work.glob("predictions/images/*"))) == 2

    demo()  # the training is finished
    shown = capsys.readouterr().out
    assert "[2/3]" not in shown
    assert "AP50" in shown

    # A training that was killed after its first checkpoint, before its metrics.
    for log in work.glob("*/vis_data/scalars.json"):
        log.write_text("")
    demo()
    shown = capsys.readouterr().out
    assert f"train.py {config} --work-dir {work} --resume" in shown
