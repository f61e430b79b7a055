"""Every recipe builds its model and its data's transforms, and says what it means."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import TRANSFORMS

from perception.datasets.driving.transforms import AugmentGround, CropResizeRig, DrawGridMask, NeedCameraObjects
from perception.datasets.synthetic import driving
from perception.datasets.synthetic.nuscenes_writer import split_names
from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.inference.images.detector import _in_memory_pipeline
from tests.conftest import REPOSITORY

# Frames, groups of queries, epochs, whether augmented; parameters of backbone, neck and perspective head in millions,
# and of the head that looks from above.
SHARED = 23.51 + 3.87 + 7.41
RECIPES = {
    "bevformer_v2": (1, 1, 24, False, 21.41),
    "bevformer_v2/t1_base_48e": (1, 1, 48, False, 21.41),
    "bevformer_v2/t1_24e": (1, 11, 24, True, 26.02),
    "bevformer_v2/t1_48e": (1, 11, 48, True, 26.02),
    "bevformer_v2/t2_24e": (2, 11, 24, True, 40.32),
    "bevformer_v2/t2_48e": (2, 11, 48, True, 40.32),
    "bevformer_v2/t8_24e": (8, 11, 24, True, 56.83),
    "bevformer_v2/t8_48e": (8, 11, 48, True, 56.83),
    "bevformer_v2/t1_two_stage_24e": (1, 11, 24, True, 26.21),
}


def config(name):
    return load_config(str(REPOSITORY / "configs" / f"{name}.py"))


def test_all_recipes_are_here():
    folder = REPOSITORY / "configs" / "bevformer_v2"
    assert {path.stem for path in folder.glob("t*.py")} == {name.partition("/")[2] for name in RECIPES} - {""}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name):
    frames, groups, epochs, augmented, millions = RECIPES[name]
    cfg = config(name)
    with torch.device("meta"):
        model = MODELS.build({**cfg.model, "init_cfg": None})
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SHARED + millions, abs=0.03)
    offsets = tuple(range(1 - frames, 1))
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert model.frames == offsets
    assert [tuple(loader.dataset.frame_offsets) for loader in loaders] == [offsets] * 3
    assert (model.pts_bbox_head.num_queries, model.pts_bbox_head.num_groups) == (900, groups)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[1].milestones) == (epochs, [epochs - 4])
    steps = [TRANSFORMS.build(step) for step in cfg.train_dataloader.dataset.pipeline]
    kinds = [type(step) for step in steps]
    assert (AugmentGround in kinds) is augmented
    assert (DrawGridMask in kinds) is ("two_stage" not in name)
    assert kinds.index(NeedCameraObjects) == kinds.index(CropResizeRig) + 1
    crop = steps[kinds.index(CropResizeRig)]
    assert len(crop.heights) == (9 if augmented else 1)
    assert crop.flip_prob == (0.5 if augmented else 0.0)


def test_the_demo_is_for_the_built_in_streets():
    """Whatever their number: the defaults of the command that a message names are what the config asks for."""
    cfg, params = config("demo/bevformer_v2"), driving.Params()
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = [TRANSFORMS.build(step) for step in loader.dataset.pipeline]
        crop = next(step for step in steps if isinstance(step, CropResizeRig))
        assert crop.size == (params.height, params.width)
    names = {f"infos_{split}.msgpack" for split in split_names(params)}
    assert {loader.dataset.ann_file for loader in (cfg.train_dataloader, cfg.val_dataloader)} == names


def test_published_sizes():
    with torch.device("meta"):
        model = MODELS.build({**config("bevformer_v2").model, "init_cfg": None})

    def millions(module):
        return sum(p.numel() for p in module.parameters()) / 1e6

    assert millions(model.img_backbone) == pytest.approx(23.5, abs=0.06)
    assert millions(model.img_neck) == pytest.approx(3.87, abs=5e-3)
    assert millions(model.fcos3d_bbox_head) == pytest.approx(7.41, abs=5e-3)


def test_backbone_learns_at_half_the_rate():
    cfg = config("bevformer_v2")
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.img_backbone.lr_mult == 0.5
    assert cfg.optim_wrapper.optimizer.lr == 4e-4


def test_a_folder_of_images_is_no_folder_of_rigs():
    with pytest.raises(UserError, match="LoadRigImages, which a folder of images cannot serve"):
        _in_memory_pipeline(config("bevformer_v2"))
