"""tools/gpu_check.py, as far as a machine without a GPU can run it."""

import os
import runpy
import subprocess
import sys

import pytest
import torch

from perception.ops import backend
from tests.conftest import REPOSITORY


def test_without_a_gpu_it_says_so(run_tool):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    result = run_tool("gpu_check")
    assert result.code == 1
    assert result.err.startswith("No CUDA device")


def test_torch_alone_is_enough_for_its_cases():
    code = f"""
import sys
sys.path.append({str(REPOSITORY / "benchmarks")!r})
for absent in ("torchvision", "mmcv", "mmengine", "mmdet", "hypothesis"):
    sys.modules[absent] = None
from tests.ops.native_cases import CASES, KERNELS
from ops_cases import rows
names = [name for name, _ in rows(large=False, device="cpu")]
print(len(CASES) >= len(KERNELS) > 15, len(names) >= len(KERNELS))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_its_comparisons_find_no_difference():
    if "cpu" not in backend.devices():
        pytest.skip(f"no native kernels: {backend.reason()}")
    check = runpy.run_path(str(REPOSITORY / "tools" / "gpu_check.py"))
    assert check["equality"]("cpu") == []
    assert check["derivatives"]("cpu") == []


def test_cores_of_all_systems_run(capsys):
    check = runpy.run_path(str(REPOSITORY / "tools" / "gpu_check.py"))
    assert check["systems"]("cpu") == []
    projects = {path.parent.name for path in (REPOSITORY / "projects").glob("*/__init__.py")}
    assert capsys.readouterr().out == f"Cores of {', '.join(sorted(projects))} on cpu and on the CPU, 0 differ.\n"
