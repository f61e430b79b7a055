"""The images: their files agree with the repository, and where asked for they are built and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FILES = ("docker/Dockerfile", "docker/Dockerfile.cpu")


def _text(name):
    return (REPOSITORY / name).read_text()


def test_both_install_the_same_packages_with_the_same_uv():
    stages = [re.search(r"AS packages\n(.*?)\n\nFROM", _text(name), re.DOTALL)[1] for name in FILES]
    assert stages[0] == stages[1]
    version = re.search(r"^UV_VERSION=(\S+)$", _text("tools/setup.sh"), re.MULTILINE)[1]
    assert re.findall(r"^ARG UV_VERSION=(\S+)$", _text(FILES[0]), re.MULTILINE) == [version]


def test_the_layer_of_torch_holds_what_torch_needs():
    pattern = re.search(r"grep -E '(.*?)'", _text(FILES[1]))[1]
    names = [line.partition("==")[0] for line in _text("requirements.lock").splitlines() if re.search(pattern, line)]
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "nvidia-cudnn-cu13"} <= set(names)
    assert not [name for name in names if not re.match(r"torch$|torchvision$|triton$|nvidia-|cuda-", name)]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_let_through(name):
    let_through = {line[1:] for line in _text(".dockerignore").splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", _text(name), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert {"requirements.lock", "pyproject.toml", "perception", "projects", "configs", "startup"} <= set(copied)
    for source in copied:
        assert (REPOSITORY / source).exists()
        assert source in let_through


@pytest.mark.parametrize("name", FILES)
def test_nobody_runs_as_root(name):
    last = _text(name).rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!0$|root$)\d+$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["perception"]' in last


def test_the_linter_has_nothing_to_say():
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint, of perception[dev], is not installed")
    done = subprocess.run([program, *FILES], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_the_image_is_built_and_trains(tmp_path):
    """Gigabytes and half an hour: only where PERCEPTION_TEST_IMAGE names a program such as docker or podman."""
    engine = os.environ.get("PERCEPTION_TEST_IMAGE")
    if not engine:
        pytest.skip("PERCEPTION_TEST_IMAGE names no program that builds images (docker, podman)")
    if shutil.which(engine) is None or subprocess.run([engine, "info"], capture_output=True).returncode:
        pytest.skip(f"{engine} is not there, or builds nothing here")
    subprocess.run([engine, "build", "-f", FILES[1], "-t", "perception:test", "."], cwd=REPOSITORY, check=True)
    (tmp_path / "data").mkdir()
    user = f"{os.getuid()}:{os.getgid()}"
    common = [engine, "run", "--rm", "--network", "none", "--user", user, "--shm-size", "1g"]
    common += ["-v", f"{tmp_path}:/workspace", "perception:test"]
    helped = subprocess.run([*common, "--help"], check=True, capture_output=True, text=True)
    assert "make-data" in helped.stdout
    subprocess.run(
        [*common, "make-data", "shapes", "--out", "data/shapes", "--num-train", "8", "--num-val", "4"], check=True
    )
    steps = ["train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2"]
    roots = [f"{one}_dataloader.dataset.data_root=data/shapes/" for one in ("train", "val", "test")]
    train = [*common, "train", "demo/rank_detr", "--work-dir", "outputs/run", "--cfg-options", *steps, *roots]
    subprocess.run(train, check=True)
    assert (tmp_path / "outputs/run/iter_2.pth").is_file()
