"""Every recipe: its model is the published one, its settings are those of the spec, its data sets are read."""

import json
import shlex

import numpy as np
import pytest
import torch
from mmdet.registry import DATA_SAMPLERS, DATASETS, METRICS, MODELS
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from PIL import Image

from perception.datasets import dior, nwpu_vhr10
from perception.datasets.resumable import SeededIndex
from perception.datasets.resumable_epochs import ResumableEpochAspectRatioBatchSampler
from perception.engine.config import drop_initial_weights, load_config
from perception.engine.data_check import examine
from tests.conftest import REPOSITORY
from tests.datasets.test_voc import write as write_voc
from tests.datasets.test_voc import xml

# Parameters in millions, classes, base scale, heights of the five scales (None: one), repetitions of an epoch.
ISAID, DIOR, VHR, HRSID = (15, (1400, 800)), (20, (1200, 800)), (10, (1200, 800)), (1, (1200, 1000))
WIDE, NARROW = (1200, 1000, 800, 600, 400), (1200, 1100, 1000, 900, 800)
PUBLISHED = {
    "catnet": (54.69, *ISAID, None, 1),
    "catnet/cat_mask_rcnn_r50_aug_3x_isaid": (54.69, *ISAID, WIDE, 1),
    "catnet/cat_mask_rcnn_r50_3x_isaid_tv": (54.69, *ISAID, None, 1),
    "catnet/cat_mask_rcnn_r50_aug_3x_isaid_tv": (54.69, *ISAID, WIDE, 1),
    "catnet/catnet_r50_3x_dior": (42.19, *DIOR, None, 1),
    "catnet/catnet_r50_aug_3x_dior": (42.19, *DIOR, WIDE, 1),
    "catnet/cat_rcnn_r50_3x_dior": (51.56, *DIOR, None, 1),
    "catnet/cat_rcnn_r50_aug_3x_dior": (51.56, *DIOR, WIDE, 1),
    "catnet/cat_mask_rcnn_r50_6x_vhr": (54.66, *VHR, None, 2),
    "catnet/cat_mask_rcnn_r50_aug_6x_vhr": (54.66, *VHR, WIDE, 2),
    "catnet/cat_mask_rcnn_r50_6x_hrsid": (54.61, *HRSID, None, 2),
    "catnet/cat_mask_rcnn_r50_aug_6x_hrsid": (54.61, *HRSID, NARROW, 2),
}
# The plain twin of each, and its parameters.
TWINS = {
    "catnet/mask_rcnn_r50_3x_isaid_plain": ("catnet", 44.05),
    "catnet/retinanet_r50_3x_dior_plain": ("catnet/catnet_r50_3x_dior", 36.72),
    "catnet/faster_rcnn_r50_3x_dior_plain": ("catnet/cat_rcnn_r50_3x_dior", 41.45),
    "catnet/mask_rcnn_r50_6x_vhr_plain": ("catnet/cat_mask_rcnn_r50_6x_vhr", 44.02),
    "catnet/mask_rcnn_r50_6x_hrsid_plain": ("catnet/cat_mask_rcnn_r50_6x_hrsid", 43.97),
}
SIZES = {name: row[0] for name, row in PUBLISHED.items()} | {name: size for name, (_, size) in TWINS.items()}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def recipe(name):
    cfg = load_config(str(REPOSITORY / "configs" / f"{name}.py"), {})
    drop_initial_weights(cfg)
    return cfg


def parts(dataset):
    """The data sets within wrappers."""
    if "datasets" in dataset:
        return [part for wrapped in dataset.datasets for part in parts(wrapped)]
    return parts(dataset.dataset) if "dataset" in dataset else [dataset]


def test_no_recipe_is_forgotten():
    folder = REPOSITORY / "configs" / "catnet"
    assert {f"catnet/{file.stem}" for file in folder.glob("[a-z]*.py")} | {"catnet"} == SIZES.keys()
    assert len(PUBLISHED) == 12


def of_one_scale(name):
    """The recipe that another one differs from in its data alone."""
    name = name.replace("_aug_", "_").removesuffix("_tv")
    return "catnet" if name.endswith("_3x_isaid") else name


@pytest.mark.parametrize("name", [name for name in PUBLISHED if of_one_scale(name) != name])
def test_scales_and_sets_change_no_model(name):
    assert recipe(name).model == recipe(of_one_scale(name)).model
    assert SIZES[name] == SIZES[of_one_scale(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SIZES if of_one_scale(name) == name])
def test_sizes(name):
    with torch.device("meta"):
        model = MODELS.build(recipe(name).model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.005)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    _, classes, scale, heights, repetitions = PUBLISHED[name]
    cfg = recipe(name)
    retina = "bbox_head" in cfg.model
    assert cfg.optim_wrapper.optimizer.lr == (0.005 if retina else 0.01)
    assert (cfg.optim_wrapper.optimizer.momentum, cfg.optim_wrapper.optimizer.weight_decay) == (0.9, 1e-4)
    assert "clip_grad" not in cfg.optim_wrapper
    assert cfg.auto_scale_lr.base_batch_size == 8
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.train_cfg.max_epochs == 36
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 500, False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([28, 34], 0.1, True)
    assert cfg.train_dataloader.dataset.get("times", 1) == repetitions
    for data in parts(cfg.train_dataloader.dataset):
        resize, flip = data.pipeline[3:5]
        if heights is None:
            assert resize.scale == scale
        else:
            assert [tuple(one) for one in resize.scales] == [(scale[0], height) for height in heights]
        assert resize.keep_ratio is True
        assert (flip.prob, flip.direction) == (0.75, ["horizontal", "vertical", "diagonal"])
        assert data.filter_cfg.filter_empty_gt is True
        assert data.filter_cfg.min_size == 32
        assert len(data.metainfo.classes) == classes
    (test,) = parts(cfg.test_dataloader.dataset)
    assert test.pipeline[1].scale == scale
    assert test.metainfo.classes == data.metainfo.classes
    assert cfg.model.backbone.norm_eval is False
    assert cfg.model.backbone.norm_cfg.type == "SyncBN"
    necks = cfg.model.neck
    assert (necks[0].stack_times, necks[0].num_outs, necks[0].get("start_level", 0)) == (5, 5, int(retina))
    if retina:
        assert cfg.model.data_preprocessor.pad_size_divisor == 128
        assert cfg.model.bbox_head.num_classes == classes
        tested = cfg.model.test_cfg
        assert (tested.nms_pre, tested.score_thr) == (2000, 0.05)
    else:
        assert cfg.model.data_preprocessor.pad_size_divisor == 64
        assert cfg.model.train_cfg.rcnn.assigner.match_low_quality is False
        head = cfg.model.roi_head
        assert head.bbox_head.num_classes == classes
        assert head.bbox_roi_extractor.direction == "bottom_up"
        assert ("mask_head" in head) is ("mask" in name or name == "catnet")
        if "mask_head" in head:
            assert head.mask_head.num_classes == classes
            assert head.mask_roi_extractor.direction == "top_down"
            assert cfg.model.data_preprocessor.pad_mask is True
        tested = cfg.model.test_cfg.rcnn
        assert tested.score_thr == 0.05
        assert cfg.model.test_cfg.rpn.max_per_img == 2000
    assert (tested.nms.type, tested.nms.iou_threshold, tested.max_per_img) == ("soft_nms", 0.5, 1000)


def test_data_of_the_recipes():
    assert parts(recipe("catnet/catnet_r50_3x_dior").test_dataloader.dataset)[0].metainfo.classes == dior.CLASSES
    vhr = recipe("catnet/cat_mask_rcnn_r50_6x_vhr")
    assert parts(vhr.train_dataloader.dataset)[0].metainfo.classes == nwpu_vhr10.CLASSES
    assert vhr.val_evaluator.metric == ["bbox", "segm"]
    assert vhr.val_evaluator.classwise is True
    assert recipe("catnet/cat_mask_rcnn_r50_6x_hrsid").train_dataloader.dataset.dataset.metainfo.classes == ("ship",)
    lists = [part.ann_file for part in parts(recipe("catnet/cat_rcnn_r50_aug_3x_dior").train_dataloader.dataset)]
    assert lists == ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt"]
    tv = recipe("catnet/cat_mask_rcnn_r50_aug_3x_isaid_tv")
    assert [part.data_prefix.img for part in parts(tv.train_dataloader.dataset)] == ["train/images/", "val/images/"]
    assert (tv.val_dataloader, tv.val_cfg, tv.val_evaluator) == (None, None, None)
    assert tv.test_evaluator.format_only is True
    assert tv.test_evaluator.outfile_prefix == "work_dirs/isaid_test"
    assert tv.test_dataloader.dataset.ann_file == "test/instancesonly_filtered_test.json"


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_differs_in_necks_and_extractors(name):
    plain, cat = (recipe(n).to_dict() for n in (name, TWINS[name][0]))
    models = plain.pop("model"), cat.pop("model")
    for cfg in (plain, cat):
        for key in ("work_dir", "one_stage_fpn"):
            cfg.pop(key, None)
    assert plain == cat
    necks = [model.pop("neck") for model in models]
    assert isinstance(necks[1], list)
    assert necks[0]["type"].rpartition(".")[2] == "FPN"
    for head in (model["roi_head"] for model in models if "roi_head" in model):
        for key in ("bbox_roi_extractor", "mask_roi_extractor"):
            if key in head:
                extractor = head.pop(key)
                wanted = "HierarchicalRoIExtractor" if "direction" in extractor else "SingleRoIExtractor"
                assert extractor["type"].rpartition(".")[2] == wanted
    assert models[0] == models[1]


def test_the_demo_and_its_twin():
    cat, plain = (recipe(f"demo/{name}").to_dict() for name in ("catnet", "catnet_plain"))
    models = [MODELS.build(recipe(f"demo/{name}").model) for name in ("catnet", "catnet_plain")]
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    assert sizes == [1_914_716, 1_687_882]
    for cfg in (cat, plain):
        cfg.pop("work_dir")
        cfg["model"].pop("neck")
        for key in ("bbox_roi_extractor", "mask_roi_extractor"):
            cfg["model"]["roi_head"].pop(key)
    assert cat == plain


# ------------------------------------------------------------------------------------------------------------- data


def masked(root, name, count, classes, first=0, objects=True):
    """An annotation file of COCO's format with pictures of 64 x 48 pixels, and a square in each."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    images = root / ("images" if (root / "images").exists() else f"{name.split('/')[0]}/images")
    images.mkdir(parents=True, exist_ok=True)
    categories = [dict(id=k + 3, name=name) for k, name in enumerate(classes)]
    content = dict(images=[], annotations=[], categories=categories[::-1])
    for k in range(first, first + count):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(images / f"{k}.png")
        content["images"].append(dict(id=k, file_name=f"{k}.png", width=64, height=48))
        if objects:
            content["annotations"].append(
                dict(id=k, image_id=k, category_id=3 + k % len(classes), bbox=[4, 4, 20, 20], area=400, iscrowd=0,
                     segmentation=[[4, 4, 24, 4, 24, 24, 4, 24]])
            )  # fmt: skip
    (root / name).write_text(json.dumps(content))


def at(cfg, root):
    """The recipe with its data below another folder."""
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        for data in parts(loader.dataset) if loader else ():
            data.data_root = f"{root}/{data.data_root}"
    return cfg


@pytest.fixture
def data(tmp_path):
    """All four data sets in the layouts of docs/data.md, a few small images each."""
    root = tmp_path / "data"
    isaid = recipe("catnet").train_dataloader.dataset.metainfo.classes
    for split, first in (("train", 0), ("val", 3), ("test", 5)):
        masked(root / "isaid", f"{split}/instancesonly_filtered_{split}.json", 2, isaid, first, split != "test")
    for name, classes, files in (
        ("vhr", nwpu_vhr10.CLASSES, ("instances_train", "instances_test")),
        ("hrsid", ("ship",), ("train2017", "test2017")),
    ):
        (root / name / "images").mkdir(parents=True)
        for k, file in enumerate(files):
            masked(root / name, f"annotations/{file}.json", 2, classes, 2 * k)
    boxes = {str(k): xml((dior.CLASSES[k], 5, 5, 24, 24), size=(64, 48)) for k in range(5)}
    write_voc(root / "dior", boxes, size=(64, 48))
    for split, names in (("train", "01"), ("val", "2"), ("test", "34")):
        (root / "dior" / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return tmp_path


DATA = {
    "catnet": (2, 2),
    "catnet/cat_mask_rcnn_r50_aug_3x_isaid_tv": (4, 2),
    "catnet/catnet_r50_aug_3x_dior": (3, 2),
    "catnet/cat_mask_rcnn_r50_6x_vhr": (4, 2),
    "catnet/cat_mask_rcnn_r50_aug_6x_hrsid": (4, 2),
}


@pytest.mark.parametrize("name", DATA)
def test_data_sets_are_read_and_checked(data, name):
    cfg = at(recipe(name), data)
    report = examine(cfg)
    assert [text for text in report.errors if not text.startswith("test")] == []
    train, test = (DATASETS.build(cfg[f"{split}_dataloader"].dataset) for split in ("train", "test"))
    assert (len(train), len(test)) == DATA[name]
    sample = train[SeededIndex(0, 5)]["data_samples"]
    assert len(sample.gt_instances.labels) == 1
    assert test[0]["data_samples"].metainfo["ori_shape"] == (48, 64)
    # The seed comes through sets that repeat and join others: what is drawn depends on nothing else.
    last = len(train) - 1
    again = [train[SeededIndex(last, 7)] for _ in range(2)]
    assert torch.equal(again[0]["inputs"], again[1]["inputs"])
    assert again[0]["data_samples"].flip_direction == again[1]["data_samples"].flip_direction
    drawn = {train[SeededIndex(last, seed)]["data_samples"].flip_direction for seed in range(40)}
    assert drawn == {None, "horizontal", "vertical", "diagonal"}
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = test.metainfo
    assert len(test.metainfo["classes"]) == PUBLISHED[name][1]


def test_batches_of_one_orientation(data):
    """Portrait and landscape images apart, each with a seed that depends on the run's seed and its place alone."""
    cfg = at(recipe("catnet/cat_mask_rcnn_r50_6x_vhr"), data)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    sampler = DefaultSampler(train, seed=3)
    batches = DATA_SAMPLERS.build(dict(type=ResumableEpochAspectRatioBatchSampler, sampler=sampler, batch_size=2))
    infos = {k: dict(width=64, height=48 if k % 2 else 80) for k in range(4)}
    train.get_data_info = infos.__getitem__
    first = list(batches)
    assert sorted(int(k) for batch in first for k in batch) == [0, 1, 2, 3]
    assert all(len({int(k) % 2 for k in batch}) == 1 for batch in first)
    batches.skip(1)
    (second,) = list(batches)
    assert [(int(k), k.seed) for k in second] == [(int(k), k.seed) for k in first[1]]


def test_commands_of_the_page_of_data(run_tool, tmp_path, data):
    """iSAID's patches and DIOR's file of COCO's format; `data/` and `iSAID/` stand for folders with few images."""
    isaid = recipe("catnet").train_dataloader.dataset.metainfo.classes
    for split in ("train", "val", "test"):
        masked(tmp_path / "iSAID", f"{split}/x.json", 1, isaid)
        (tmp_path / "iSAID" / f"iSAID_{split}.json").write_text((tmp_path / "iSAID" / split / "x.json").read_text())
    for split in ("train", "val", "test"):
        for path in (data / "data" / "isaid" / split).rglob("*"):
            if path.is_file():
                path.unlink()
        for path in ("images", ""):
            (data / "data" / "isaid" / split / path).rmdir()
    lines = (REPOSITORY / "docs" / "data.md").read_text().splitlines()
    for tool, count in (("split_coco", 3), ("voc_to_coco", 1)):
        start = f"python tools/dataset_converters/{tool}.py"
        commands = [shlex.split(line)[1:] for line in lines if line.startswith(start)]
        assert len(commands) == count
        for _, *arguments in commands:
            words = [tmp_path / word if word.startswith(("data/", "iSAID/")) else word for word in arguments]
            done = run_tool(f"dataset_converters/{tool}", *words)
            assert done.code == 0, done.err
    cfg = at(recipe("catnet/cat_mask_rcnn_r50_3x_isaid_tv"), tmp_path)
    assert examine(cfg, ("train",)).errors == []
    assert len(DATASETS.build(cfg.test_dataloader.dataset)) == 1
    content = json.loads((tmp_path / "data" / "dior" / "train.json").read_text())
    assert [entry["bbox"] for entry in content["annotations"]] == [[4, 4, 20, 20]] * 2
