"""The console script `perception`: what it lists, whose code it runs, and recipes by their names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perception import commands
from perception.engine.config import find_config, load_config
from tests.conftest import REPOSITORY

SCRIPT = Path(sys.executable).with_name("perception")


def perception(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_help_lists_every_command(tmp_path):
    done = perception("--help", folder=tmp_path)
    assert done.returncode == 0
    for name, line in commands.COMMANDS.items():
        assert any(row.split() == [name, *line.split()] for row in done.stdout.splitlines())
    unknown = perception("trian", folder=tmp_path)
    assert unknown.returncode == 2
    assert "invalid choice: 'trian'" in unknown.stderr


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_a_parser_with_an_example(name):
    module = commands.load_command(name)
    text = module.make_parser([]).format_help()
    assert "example" in text
    assert callable(module.run)


def test_tools_run_the_same_code():
    named = {path.stem: path.read_text() for path in (REPOSITORY / "tools").glob("*.py")}
    run = {text.split('run_tool("')[1].split('"')[0] for text in named.values() if 'run_tool("' in text}
    assert run == set(commands.COMMANDS) - {"ops"}


def test_recipes_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    recipe = REPOSITORY / "configs" / "demo" / "rank_detr.py"
    monkeypatch.chdir(tmp_path)
    for name in ("demo/rank_detr", "demo/rank_detr.py", "configs/demo/rank_detr.py", "configs/demo/rank_detr"):
        assert find_config(name) == recipe
        assert load_config(name).work_dir == "work_dirs/demo/rank_detr"
    for name in ("demo/none", "../configs/demo/rank_detr", str(recipe.with_suffix("")), "demo", ""):
        assert find_config(name) is None
    (tmp_path / "demo").mkdir()
    own = tmp_path / "demo" / "rank_detr.py"
    own.write_text("own = 1\n")
    assert find_config("demo/rank_detr.py") == Path("demo/rank_detr.py")  # the file before the recipe
    assert find_config("demo/rank_detr") == recipe


def test_recipes_by_name_on_the_command_line(tmp_path):
    done = perception("print-config", "rank_detr", "--key", "train_cfg.val_interval", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("=")[0].strip() == "val_interval"


def test_usage_names_the_command_and_errors_are_one_sentence(tmp_path):
    done = perception("print-config", "demo/none", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: config demo/none does not exist")
    done = perception("print-config", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: perception print-config")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("perception pri", {"print-config "}),
        ("perception print-config --k", {"--key "}),
        ("perception ops b", {"build "}),
    ],
)
def test_completion(tmp_path, line, expected):
    answer = tmp_path / "answer"
    environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    done = perception(folder=tmp_path, _ARGCOMPLETE_STDOUT_FILENAME=str(answer), **environment)
    assert done.returncode == 0
    assert set(answer.read_text().split("\n")) == expected
