"""The command lines: help, one-sentence errors, and what they write."""

import pickle

import pytest
import torch
from mmdet.registry import MODELS

from perception.engine.config import check_initial_weights, drop_initial_weights, load_config
from perception.engine.errors import UserError
from tests.conftest import REPOSITORY
from tests.projects.rank_detr.demo import TINY, data_options, tiny_config

DEMO = "configs/demo/rank_detr.py"


def options(values: dict) -> list[str]:
    return ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in values.items())]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, shapes_folder):
    """An untrained tiny demo model."""
    folder = tmp_path_factory.mktemp("weights")
    cfg = tiny_config(REPOSITORY / shapes_folder, folder)
    torch.manual_seed(0)
    path = folder / "tiny.pth"
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": {}}, path)
    return path


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "test",
        "check_data",
        "make_config",
        "print_config",
        "convert_checkpoint",
        "make_demo_data",
        "infer",
        "demo",
    ],
)
def test_help_has_an_example(run_tool, name):
    done = run_tool(name, "--help")
    assert done.code == 0
    assert f"python tools/{name}.py" in done.out


def test_missing_data_set_is_one_sentence(run_tool):
    done = run_tool("train", "configs/rank_detr.py")
    assert done.code == 1
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1
    for part in ("data/coco/annotations/instances_train2017.json", "train2017/", "configs/demo/"):
        assert part in done.err


def test_missing_demo_data_says_how_to_make_it(run_tool, tmp_path):
    done = run_tool("train", DEMO, "--work-dir", tmp_path, *options(data_options(tmp_path / "none")))
    assert done.code == 1
    assert "none/annotations/instances_train.json is missing" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("configs/none.py",), "config configs/none.py does not exist"),
        ((DEMO, "--resume", "none.pth"), "checkpoint none.pth does not exist"),
        (("pyproject.toml",), "config pyproject.toml cannot be used"),
        ((DEMO, "--launcher", "slurm"), "needs CUDA"),
        ((DEMO, "--launcher", "pytorch"), "expects torchrun"),
        ((DEMO, "--resume", "WEIGHTS"), "the checkpoint holds weights alone, not the state of a run"),
        ((DEMO, "--work-dir", "pyproject.toml/run"), "pyproject.toml is a file, not a folder"),
        ((DEMO, "--cfg-options", "train_cfg.max_itres=2"), "IterBasedTrainLoop takes no max_itres; max_iters?"),
    ],
)
def test_train_errors(run_tool, shapes_folder, checkpoint, tmp_path, arguments, message):
    work_dir = () if "--work-dir" in arguments else ("--work-dir", tmp_path)
    arguments = [checkpoint if word == "WEIGHTS" else word for word in arguments]
    done = run_tool("train", *arguments, *work_dir, *options({**TINY, **data_options(shapes_folder)}))
    assert done.code == 1
    assert message in done.err


@pytest.mark.parametrize("seed", ["-4", "4294967296", "1.5", "x"])
def test_seeds_are_those_of_the_generators(run_tool, seed):
    done = run_tool("train", DEMO, "--seed", seed)
    assert done.code == 2
    assert f"{seed} is not a whole number from 0 to 4294967295" in done.err


def test_resume_refuses_a_folder_without_checkpoints(run_tool, shapes_folder, tmp_path):
    arguments = ("train", DEMO, "--work-dir", tmp_path, "--resume", *options(data_options(shapes_folder)))
    done = run_tool(*arguments)
    assert done.code == 1
    assert f"nothing to resume: {tmp_path} has no checkpoint yet; leave out --resume" in done.err
    (tmp_path / "last_checkpoint").write_text("gone/iter_3.pth")
    done = run_tool(*arguments)
    assert done.code == 1
    assert "names gone/iter_3.pth, which does not exist" in done.err


def test_missing_initial_weights():
    cfg = load_config(DEMO)
    cfg.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="none.pth")
    with pytest.raises(UserError, match=r"initial weights none\.pth are missing"):
        check_initial_weights(cfg)
    drop_initial_weights(cfg)
    check_initial_weights(cfg)


def test_train_then_test(run_tool, shapes_folder, tmp_path):
    values = {**TINY, **data_options(shapes_folder), "train_cfg.max_iters": 2, "default_hooks.checkpoint.interval": 2}
    work = tmp_path / "work"
    done = run_tool("train", DEMO, "--work-dir", work, "--seed", 3, "--auto-scale-lr", *options(values))
    assert done.code == 0
    lines = done.out.splitlines()
    assert sum("Iter(train)" in line for line in lines) == 2
    assert any("Iter(val)" in line for line in lines)
    (log,) = work.glob("*/*.log")
    assert str(log) in lines[0]
    # Environment, config and the options of each parameter are in the log alone.
    written = log.read_text()
    for part in ("System environment:", "Config:\nauto_scale_lr", "paramwise_options -- ", "Hooks will be executed"):
        assert part in written
        assert part not in done.out
    assert len(lines) < 60 < len(written.splitlines()) / 10
    saved = torch.load(work / "iter_2.pth", weights_only=False)
    assert saved["meta"]["seed"] == 3
    assert saved["optimizer"]["param_groups"][0]["initial_lr"] == pytest.approx(1e-3 * 2 / 4)

    dump, pictures = tmp_path / "predictions.pkl", tmp_path / "pictures"
    done = run_tool(
        "test", DEMO, work / "iter_2.pth", "--work-dir", work, "--out", dump, "--show-dir", pictures, *options(values)
    )
    assert done.code == 0
    predictions = pickle.loads(dump.read_bytes())
    assert len(predictions) == 4
    assert all(len(p["pred_instances"]["scores"]) > 0 for p in predictions)
    assert len([path for path in pictures.rglob("*.jpg") if "page" not in path.relative_to(pictures).parts]) == 4
    assert (pictures / "index.html").is_file()


def test_test_refuses_another_model(run_tool, shapes_folder, checkpoint, tmp_path):
    values = {**TINY, **data_options(shapes_folder), "model.transformer.feedforward_channels": 32}
    done = run_tool("test", DEMO, checkpoint, "--work-dir", tmp_path, *options(values))
    assert done.code == 1
    assert "is not of this model" in done.err
    done = run_tool("test", DEMO, checkpoint, "--out", "x.json", *options(data_options(shapes_folder)))
    assert done.code == 1
    assert "must end in .pkl" in done.err


def test_print_config(run_tool, tmp_path):
    done = run_tool("print_config", "configs/rank_detr.py", "--key", "model.criterion.matcher")
    assert done.code == 0
    assert "change_iter=67500" in done.out
    done = run_tool("print_config", "configs/rank_detr.py", "--key", "model.none")
    assert done.code == 1
    assert "the config has no model.none" in done.err
    full = tmp_path / "full.py"
    assert run_tool("print_config", DEMO, "--out", full, *options({"max_iters": 7})).code == 0
    assert run_tool("print_config", full, "--key", "model.transformer").code == 0
    refused = run_tool("print_config", DEMO, "--out", full / "below.py")
    assert refused.code == 1
    assert "is a file, not a folder" in refused.err


def test_infer_checks_its_tiles(run_tool, checkpoint, tmp_path):
    arguments = (DEMO, checkpoint, tmp_path, "--out", tmp_path / "out")
    done = run_tool("infer", *arguments, "--overlap", 10)
    assert done.code == 1
    assert "belong to --tile" in done.err
    done = run_tool("infer", *arguments, "--tile", 31)
    assert done.code == 1
    assert "--tile 31 is below 32 pixels" in done.err
    done = run_tool("infer", *arguments, "--tile", 100, "--overlap", 100)
    assert done.code == 1
    assert "below the tile's 100, not 100" in done.err
    done = run_tool("infer", *arguments, "--tile", 100, "--merge-iou", 50)
    assert done.code == 2
    assert "50 is not between 0 and 1" in done.err


def test_convert_checkpoint(run_tool, checkpoint, tmp_path):
    authors, ours = tmp_path / "authors.pth", tmp_path / "new" / "ours.pth"
    done = run_tool("convert_checkpoint", "rank_detr", checkpoint, authors, "--to", "authors")
    assert done.code == 0
    assert "with query rank layer" in done.out
    done = run_tool("convert_checkpoint", "rank_detr", authors, ours)
    assert done.code == 0
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (checkpoint, ours))
    assert {k for k in before if not k.endswith("num_batches_tracked")} == set(after)
    assert all(torch.equal(before[key], after[key]) for key in after)

    assert "does not name its 6 classes" in done.out

    assert "exists" in run_tool("convert_checkpoint", "rank_detr", authors, ours).err
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\nfour\nfive\ntraffic light\n")
    done = run_tool("convert_checkpoint", "rank_detr", authors, ours, "--overwrite", "--classes", f"@{names}")
    assert done.code == 0
    classes = torch.load(ours, weights_only=True)["meta"]["dataset_meta"]["classes"]
    assert classes == ("one", "two", "three", "four", "five", "traffic light")
    for arguments, message in (
        (["--classes", "a", "b"], "tells 6 classes apart, but 2 names"),
        (["--classes", "a", "--to", "authors"], "--classes goes with --to perception"),
    ):
        done = run_tool("convert_checkpoint", "rank_detr", authors, tmp_path / "no.pth", *arguments)
        assert (done.code, message in done.err) == (1, True)
    assert run_tool("convert_checkpoint", "rank_detr", ours, authors, "--to", "authors", "--overwrite").code == 0
    done = run_tool("convert_checkpoint", "rank_detr", authors, ours, "--overwrite")
    assert "does not name" not in done.out
    assert torch.load(ours, weights_only=True)["meta"]["dataset_meta"]["classes"] == classes
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}}, authors)
    done = run_tool("convert_checkpoint", "rank_detr", authors, tmp_path / "no.pth")
    assert done.code == 1
    assert "does not hold a Rank-DETR model" in done.err
    assert not (tmp_path / "no.pth").exists()
