"""From a config to a run."""

import pytest
import torch.distributed
from mmengine.config import Config

from perception.engine import run
from perception.engine.errors import UserError


def test_processes_without_cuda_have_batch_statistics_of_their_own(monkeypatch, capsys):
    """torch's batch norm over processes wants CUDA and fails in the first step."""
    groups = []
    monkeypatch.setattr(torch.distributed, "init_process_group", groups.append)
    monkeypatch.setenv("RANK", "0")
    cfg = Config(dict(launcher="pytorch", sync_bn="torch"))
    run._use_gloo(cfg)
    assert (cfg.sync_bn, groups) == (None, ["gloo"])
    assert "statistics of its own" in capsys.readouterr().err
    run._use_gloo(Config(dict(launcher="pytorch")))
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="slurm needs CUDA"):
        run._use_gloo(Config(dict(launcher="slurm")))
