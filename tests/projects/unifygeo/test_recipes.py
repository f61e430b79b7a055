"""Every recipe builds its model, and says what it means."""

import pytest
import torch
from mmengine.registry import MODELS

from perception.engine.config import load_config
from tests.conftest import REPOSITORY

RECIPES = sorted((REPOSITORY / "configs" / "unifygeo").glob("*.py"))


def build(cfg):
    with torch.device("meta"):
        return MODELS.build({**cfg.model, "init_cfg": None})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_variants_build(path):
    cfg, base = load_config(str(path)), load_config(str(REPOSITORY / "configs" / "unifygeo.py"))
    build(cfg)
    assert cfg.to_dict() != {**base.to_dict(), "work_dir": cfg.work_dir}


def test_published_recipe():
    cfg = load_config(str(REPOSITORY / "configs" / "unifygeo.py"))
    model = build(cfg)
    assert sum(value.numel() for value in model.state_dict().values()) == 57_700_330
    assert sum(p.numel() for p in model.parameters()) == 57_698_869


def test_cross_area_reaches_every_loader():
    cfg = load_config(str(REPOSITORY / "configs" / "unifygeo" / "cross_area.py"))
    mining = cfg.custom_hooks[0]
    parts = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader, cfg.val_cfg.gallery, cfg.test_cfg.gallery]
    assert all(part.dataset.protocol == "cross_area" for part in [*parts, mining.gallery, mining.pairs])
