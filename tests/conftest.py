"""Settings shared by every test."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

import perception  # noqa: F401  (makes `import mmcv.ops` work)


@pytest.fixture(autouse=True)
def _seeded_single_thread():
    """Every test starts from the same seed, and two workers never fight over the cores."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
