"""mmseg's own segmenter configs build, train one step and predict on an mmcv without compiled operators."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from tests.ops.stock import predict, train_a_step

CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
RECIPES = {
    "UPerNet": "upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py",
    "PointRend": "point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py",
    "SegNeXt": "segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py",
    "PSANet": "psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "CCNet": "ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
}
SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_all_modules(init_default_scope=True)


def on_one_device(config):
    """The recipe without what needs several devices or a download, for images of one size."""
    for key in list(config):
        value = config[key]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                on_one_device(item)
    if config.get("type") == "SyncBN":
        config["type"] = "BN"
    for key in ("init_cfg", "pretrained"):
        if key in config:
            config[key] = None


@pytest.mark.parametrize("name", RECIPES)
def test_builds_trains_a_step_and_predicts(name):
    config = Config.fromfile(CONFIGS / RECIPES[name]).model
    on_one_device(config)
    config.data_preprocessor.size = (SIZE, SIZE)
    if "PSANet" in name:
        config.decode_head.mask_size = (SIZE // 8, SIZE // 8)
    model = MODELS.build(config)
    batch = train_a_step(model, two_images())

    for result in predict(model, batch):
        labels = result.pred_sem_seg.data
        assert labels.shape == (1, SIZE, SIZE)
        assert labels.min() >= 0
        assert torch.isfinite(result.seg_logits.data).all()


def two_images():
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for _ in range(2):
        images.append(torch.randint(0, 256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "pad_shape": (SIZE, SIZE)}
        labels = torch.randint(0, 19, (1, SIZE, SIZE), generator=generator)
        samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels)))
    return {"inputs": images, "data_samples": samples}
