"""CATNet's detectors in mmdet: published sizes and settings, a training step, labels of iSAID, converted files."""

import copy
import json

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch.testing import assert_close

from perception.engine.config import drop_initial_weights, load_config
from perception.engine.errors import UserError
from projects.catnet.converter import to_authors, to_perception
from projects.catnet.extractor import HierarchicalRoIExtractor
from projects.catnet.hroie import HRoIE
from tests.conftest import REPOSITORY

from .test_core import ROIS, leaves, load, maps

# Millions of parameters of the base files (80 classes).
SIZES = {
    "_base_/cat_rcnn_r50": 51.87,
    "_base_/cat_mask_rcnn_r50": 55.04,
    "_base_/catnet_r50": 43.43,
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def recipe(name):
    cfg = load_config(str(REPOSITORY / "configs" / f"{name}.py"), {})
    drop_initial_weights(cfg)
    return cfg


def shrink(model):
    """The same detector with few channels, plain batch norm and 4 classes."""
    model.backbone.update(depth=18, base_channels=8, frozen_stages=-1)
    model.backbone.norm_cfg.type = "BN"
    model.neck[0].update(in_channels=[8, 16, 32, 64], out_channels=16, norm_cfg=dict(type="BN"), stack_times=2)
    model.neck[1].in_channels = 16
    if "roi_head" not in model:
        model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=4)
        return model
    model.rpn_head.update(in_channels=16, feat_channels=16)
    head = model.roi_head
    head.bbox_roi_extractor.out_channels = 16
    head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=4)
    if "mask_head" in head:
        head.mask_roi_extractor.out_channels = 16
        head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=4)
    return model


def small(name):
    torch.manual_seed(0)
    model = MODELS.build(shrink(copy.deepcopy(recipe(name).model)))
    model.init_weights()
    return model


def samples(size=128):
    found = []
    for shift in (0, 20):
        boxes = torch.tensor([[10.0, 12, 60, 50], [70, 30, 110, 100], [5, 80, 40, 120]]) + shift / 4
        masks = torch.zeros(3, size, size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(size, size),
                pad_shape=(size, size),
                batch_input_shape=(size, size),
                ori_shape=(size, size),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 1, 3]), masks=BitmapMasks(masks.numpy(), size, size)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        found.append(sample)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        model = MODELS.build(recipe(name).model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.005)


@pytest.mark.parametrize("name", ["_base_/cat_mask_rcnn_r50", "_base_/catnet_r50"])
def test_step_and_prediction(name):
    model = small(name).train()
    images = torch.randn(2, 3, 128, 128)
    losses = model.loss(images, samples())
    total = sum(sum(x) if isinstance(x, list) else x for key, x in losses.items() if "loss" in key)
    total.backward()
    assert total.isfinite()
    part = (key for key, p in model.named_parameters() if ("neck" in key or "atts" in key) and p.grad is None)
    assert not list(part)
    with torch.inference_mode():
        predicted = model.eval().predict(images, samples())
    assert len(predicted) == 2
    assert all(len(sample.pred_instances) <= 1000 for sample in predicted)
    assert ("masks" in predicted[0].pred_instances) is ("mask" in name)


def test_context_stays_the_identity_through_the_start():
    model = small("_base_/catnet_r50")
    inputs = maps((16,) * 5, ((9, 7), (5, 4), (3, 2), (2, 1), (1, 1)))
    assert all(torch.equal(x, y) for x, y in zip(model.neck[1](inputs), inputs))


def test_extractor_of_mmdet_is_the_core():
    case = load("hroie")["bottom_up_7"]
    meta = case["meta"]
    extractor = MODELS.build(
        dict(
            type="HierarchicalRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=8,
            featmap_strides=meta["featmap_strides"],
            direction="bottom_up",
        )
    )
    extractor.load_state_dict(case["state_dict"])
    assert_close(extractor(case["feats"], case["rois"]), case["out"], atol=1e-5, rtol=0)
    assert_close(extractor(case["feats"], case["rois"], 1.5), case["out_scale_1_5"], atol=1e-5, rtol=0)


def test_convolutions_of_mmcv():
    """Blocks and gates with other convolutions than plain ones, of the same weights and results."""
    torch.manual_seed(0)
    other = dict(type="Conv")
    plain, context = (
        MODELS.build(dict(type="ContextAggregation", in_channels=8, reduction=2, conv_cfg=cfg)) for cfg in (None, other)
    )
    assert type(plain.k.conv) is not type(context.k.conv)
    torch.nn.init.normal_(plain.m.conv.weight)
    context.load_state_dict(plain.state_dict())
    (x,) = maps((8,))
    assert torch.equal(plain(x), context(x))
    roi_layer = dict(type="RoIAlign", output_size=(3, 5), sampling_ratio=2)
    plain, gated = (
        HierarchicalRoIExtractor(roi_layer, 8, (4, 8), "top_down", conv_cfg=cfg).double() for cfg in (None, other)
    )
    gated.load_state_dict(plain.state_dict())
    feats = [x.double() for x in maps((8, 8))]
    assert_close(plain(feats, ROIS, 1.5), gated(feats, ROIS, 1.5))
    assert gated(feats, ROIS[:0]).shape == (0, 8, 3, 5)


def test_converter_takes_extractors_of_fewer_levels():
    cfg = shrink(recipe("_base_/cat_mask_rcnn_r50").model)
    cfg.backbone.out_indices = (0, 1, 2)
    cfg.neck[0].in_channels = cfg.neck[0].in_channels[:3]
    for part in ("bbox_roi_extractor", "mask_roi_extractor"):
        cfg.roi_head[part].featmap_strides = [4, 8, 16]
    state = MODELS.build(cfg).state_dict()
    assert to_perception(state).num_weights > 0
    key = "roi_head.mask_roi_extractor.atts.2.conv.weight"
    with pytest.raises(UserError, match=f"1 weights are missing, such as {key}"):
        to_perception({other: value for other, value in state.items() if other != key})


def test_extractor_in_half_precision_keeps_the_regions():
    roi_layer = dict(type="RoIAlign", output_size=7, sampling_ratio=2)
    extractor = HierarchicalRoIExtractor(roi_layer, 8, (4,), "top_down").bfloat16()
    far = torch.tensor([[0, 4099.0, 4099.0, 4115.0, 4115.0]])
    x = torch.arange(1100.0).expand(1, 8, 1100, 1100).bfloat16()
    precise = HRoIE(8, (4,), 7, "top_down")
    precise.load_state_dict(extractor.state_dict())
    pooled = extractor([x], far)
    assert pooled.dtype == torch.bfloat16
    crop = extractor.roi_layers[0](x.float(), far)
    assert 1020 < crop.mean() < 1030
    no_regions = extractor([x], ROIS[:0])
    assert no_regions.shape == (0, 8, 7, 7)
    feats = leaves(maps((8,), batch=1))
    HierarchicalRoIExtractor(roi_layer, 8, (4,))(feats, ROIS[:0]).sum().backward()
    assert not feats[0].grad.any()


def test_isaid_labels_by_name(tmp_path):
    """The files list categories in another order than the heads; labels follow the heads."""
    cfg = recipe("catnet")
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert classes[:2] == ("ship", "storage_tank")
    assert classes[-1] == "Harbor"
    assert len(classes) == 15
    order = [13, 4, 0, *(i for i in range(15) if i not in (13, 4, 0))]
    content = dict(
        images=[dict(id=7, file_name="P0003_0_0.png", width=64, height=64)],
        categories=[dict(id=i + 1, name=classes[i]) for i in order],
        annotations=[
            dict(
                id=k,
                image_id=7,
                category_id=i + 1,
                bbox=[4 * k, 4, 8, 8],
                area=64,
                iscrowd=0,
                segmentation=[[4 * k, 4, 4 * k + 8, 4, 4 * k + 8, 12, 4 * k, 12]],
            )
            for k, i in enumerate((14, 0, 13))
        ],
    )
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "instancesonly_filtered_train.json").write_text(json.dumps(content))
    data = cfg.train_dataloader.dataset
    data.update(data_root=f"{tmp_path}/", pipeline=[])
    data = DATASETS.build(data)
    assert [instance["bbox_label"] for instance in data.get_data_info(0)["instances"]] == [14, 0, 13]


# --------------------------------------------------------------------------------------------------------- converter

FAMILIES = {
    "_base_/catnet_r50": "CATNet (RetinaNet)",
    "_base_/cat_rcnn_r50": "CAT R-CNN",
    "_base_/cat_mask_rcnn_r50": "CAT Mask R-CNN",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(name):
    state = small(name).state_dict()
    file = {
        "state_dict": {**state, "stray.weight": torch.zeros(1)},
        "meta": {"dataset_meta": {"classes": tuple("abcd")}},
    }
    ours = to_perception(file)
    assert ours.description == FAMILIES[name]
    assert ours.num_classes == 4
    assert ours.unmatched == ["stray.weight"]
    assert ours.checkpoint["state_dict"].keys() == state.keys()
    assert ours.names_classes
    small(name).load_state_dict(ours.checkpoint["state_dict"])
    back = to_authors(ours.checkpoint)
    assert back.checkpoint["meta"] == file["meta"]
    assert not back.unmatched
    for key, value in state.items():
        assert_close(back.checkpoint["state_dict"][key], value, rtol=0, atol=0)


def test_published_keys():
    with torch.device("meta"):
        state = MODELS.build(recipe("catnet").model).state_dict()
    converted = to_perception(state)
    assert converted.num_weights == len(state)
    assert converted.num_classes == 15
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["neck.0.lateral_convs.3.conv.weight"] == (256, 2048, 1, 1)
    assert shapes["neck.0.extra_convs.0.bn.running_var"] == (256,)
    assert shapes["neck.0.stages.4.9.1.conv.weight"] == (128, 128, 3, 3)
    assert shapes["neck.0.top_down_atts.0"] == (4,)
    assert shapes["neck.0.bottom_up_atts.0"] == (2,)
    assert shapes["neck.1.blocks.4.m.conv.bias"] == (256,)
    assert shapes["roi_head.mask_roi_extractor.atts.3.conv.weight"] == (256, 512, 1, 1)


@pytest.mark.parametrize(
    "key",
    [
        "neck.0.stages.1.9.2.bn.running_mean",
        "neck.0.bottom_up_atts.1",
        "neck.1.blocks.3.k.conv.bias",
        "roi_head.mask_roi_extractor.atts.2.conv.weight",
        "roi_head.mask_head.conv_logits.bias",
        "backbone.layer4.1.bn2.weight",
        "rpn_head.rpn_reg.weight",
    ],
)
def test_part_of_a_model_is_refused(key):
    state = small("_base_/cat_mask_rcnn_r50").state_dict()
    for convert in (to_perception, to_authors):
        with pytest.raises(UserError, match=f"1 weights are missing, such as {key}"):
            convert({other: value for other, value in state.items() if other != key})
        with pytest.raises(UserError, match=f"{key} has shape"):
            convert({**state, key: torch.zeros(*state[key].shape, 2)})


def test_other_models_are_refused():
    with pytest.raises(UserError, match="no weight of it is part of a DenseFPN"):
        to_perception({"backbone.conv1.weight": torch.zeros(1)})


def test_tool(run_tool, tmp_path):
    ours, authors, back = (tmp_path / f"{name}.pth" for name in ("ours", "authors", "back"))
    torch.save({"state_dict": small("_base_/cat_rcnn_r50").state_dict(), "meta": {}}, ours)
    done = run_tool("convert_checkpoint", "catnet", ours, authors, "--to", "authors")
    assert done.code == 0, done.err
    assert "CAT R-CNN" in done.out
    done = run_tool("convert_checkpoint", "catnet", authors, back, "--classes", "a", "b", "c", "d")
    assert done.code == 0, done.err
    saved = torch.load(back, weights_only=True)
    assert saved["meta"]["dataset_meta"]["classes"] == ("a", "b", "c", "d")
    assert saved["state_dict"].keys() == torch.load(ours, weights_only=True)["state_dict"].keys()
