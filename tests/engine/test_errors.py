"""How command lines report errors: outside the environment, and under torchrun; and what is not printed."""

import errno
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import mmengine.logging
import pytest

from perception.engine.errors import run_cli
from tests.conftest import REPOSITORY

TOOLS = [
    path
    for path in [*REPOSITORY.glob("tools/*.py"), *REPOSITORY.glob("tools/dataset_converters/*.py")]
    if not path.name.startswith("_")
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool_outside_the_environment_says_what_to_do(tool):
    # -S: without the packages of the environment, as the system's python3 is.
    done = subprocess.run([sys.executable, "-S", "-E", tool, "--help"], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    for part in ("is not installed for", "source .venv/bin/activate", "make setup"):
        assert part in done.stderr


def test_other_errors_of_a_tool_keep_their_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.append({str(REPOSITORY / 'tools')!r})\nimport _environment\n1 / 0\n")
    done = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a.png"), "error: out/a.png: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "error: out: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "error: out: Read-only file system"),
    ],
)
def test_a_full_disk_and_a_missing_permission_are_a_sentence(error, sentence):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_cli(main)
    assert end.value.code == sentence


def test_a_missing_file_that_nobody_foresaw_is_a_bug():
    with pytest.raises(FileNotFoundError):
        run_cli(lambda: os.stat("/nowhere/at/all").st_size)


def test_debug_messages_are_not_printed(capsys):
    mmengine.logging.print_log("Could not import OneDL", level=logging.DEBUG)
    assert capsys.readouterr().out == ""
    mmengine.logging.print_log("a message", level=logging.WARNING)
    mmengine.logging.print_log("another")
    assert capsys.readouterr().out == "a message\nanother\n"


def under_torchrun(folder: Path, processes: int, body: str) -> subprocess.CompletedProcess:
    """Runs `body` as the `main` of a command line; it knows its `rank`, and can `wait` for the others to fail."""
    script = folder / "script.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from perception.engine.errors import UserError, run_cli\n"
        "rank = int(os.environ['RANK'])\n"
        "def wait():\n"
        "    attempt = pathlib.Path(os.environ['TORCHELASTIC_ERROR_FILE']).parents[1]\n"
        "    while not list(attempt.glob('*/error.json')):\n"
        "        time.sleep(0.01)\n"
        f"def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        "run_cli(main)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, str(processes), script], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


def test_torchrun_prints_an_error_of_all_processes_once(tmp_path):
    done = under_torchrun(tmp_path, 2, "raise UserError('no data')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no data"
    assert done.stderr.count("no data") == 1
    assert "Traceback" not in done.stderr
    assert "FAILED" not in done.stderr


def test_torchrun_prints_an_error_of_one_process(tmp_path):
    done = under_torchrun(
        tmp_path,
        2,
        """
        if rank == 1:
            raise UserError('image a.jpg is damaged')
        wait()
        raise RuntimeError('connection closed by peer')
        """,
    )
    assert done.returncode == 1
    assert done.stderr.count("error: image a.jpg is damaged") == 1
    assert "Traceback" not in done.stderr
    assert "closed by peer" not in done.stderr


def test_torchrun_still_reports_other_failures(tmp_path):
    done = under_torchrun(tmp_path, 1, "raise RuntimeError('a bug')")
    assert done.returncode == 1
    assert "RuntimeError: a bug" in done.stderr
    assert "ChildFailedError" in done.stderr


@pytest.mark.slow
def test_a_missing_data_set_under_torchrun_is_one_sentence(tmp_path):
    command = [*TORCHRUN, "2", "tools/train.py", "configs/rank_detr.py", "--launcher", "pytorch"]
    options = ["--cfg-options", f"train_dataloader.dataset.data_root={tmp_path}/none/", "model.backbone.init_cfg=None"]
    done = subprocess.run(
        [*command, *options], cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""  # nor "Could not import OneDL"
    assert done.stderr.count("data set not found") == 1
    assert "Traceback" not in done.stderr
