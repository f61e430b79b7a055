"""tools/gpu_check.py, as far as a machine without a GPU can run it."""

import runpy

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


def test_its_comparisons_find_no_difference():
    if "cpu" not in backend.devices():
        pytest.skip(f"no native kernels: {backend.reason()}")
    check = runpy.run_path(str(REPOSITORY / "tools" / "gpu_check.py"))
    assert check["equality"]("cpu") == []
    assert check["derivatives"]("cpu") == []
