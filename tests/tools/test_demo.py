"""tools/demo.py, with a smaller model and less data: three tools in turn, and what it does when it is repeated."""

import runpy

import pytest

from tests.conftest import REPOSITORY
from tests.projects.rank_detr.demo import tiny_config


@pytest.mark.slow
def test_the_demo(shapes_folder, tmp_path, monkeypatch, capsys):
    data, work = tmp_path / "shapes", tmp_path / "work"
    config = tmp_path / "tiny.py"
    settings = {"train_cfg__max_iters": 4, "train_cfg__val_interval": 4, "default_hooks__checkpoint__interval": 2}
    settings["default_hooks__checkpoint__max_keep_ckpts"] = 2
    tiny_config(data, work, **settings).dump(config)
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

    # A training that was killed after its first checkpoint goes on from there.
    (work / "iter_4.pth").unlink()
    (work / "last_checkpoint").write_text(str(work / "iter_2.pth"))
    for log in work.glob("*/vis_data/scalars.json"):
        log.write_text("")
    demo()
    shown = capsys.readouterr().out
    assert f"train.py {config} --work-dir {work} --resume" in shown
    assert "[4/4]" in shown
    assert (work / "iter_4.pth").is_file()
