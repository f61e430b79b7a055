"""Configs for one's own data: they inherit a recipe, fit the data, and train."""

import ast
import json
import shutil

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from PIL import Image

from perception.engine.class_settings import class_settings
from perception.engine.config import load_config
from perception.engine.data_check import examine
from perception.engine.errors import UserError
from perception.engine.fine_tuning import class_dependent
from perception.engine.make_config import Wishes, make_config
from perception.engine.run import build_train_runner
from perception.engine.schedule import scaled_schedule
from tests.conftest import REPOSITORY
from tests.datasets.coco_sets import write, write_maps
from tests.datasets.test_coco import panoptic, reorder
from tests.projects.rank_detr.demo import TINY

pytestmark = pytest.mark.usefixtures("own_cache")

# Of recipes that differ in their backbone or schedule alone, one each.
RECIPES = sorted(
    str(path.relative_to(REPOSITORY))
    for path in REPOSITORY.glob("configs/**/*.py")
    if "_base_" not in path.parts
    and not path.name.startswith("_")
    and not any(word in path.stem for word in ("plain", "r101", "36e", "swin_t", "swin_b", "r50_no"))
)


@pytest.fixture
def place(tmp_path):
    """A folder beside the recipes, as a checkout is."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    return tmp_path


def coco(place, change=None, val_change=None, **kwargs):
    """Wishes for two small sets in COCO's format."""
    train, val = write(place / "train", change), write(place / "val", val_change, num_images=2)
    return dict(train=[str(train), f"{place}/train/images"], val=[str(val), f"{place}/val/images"], **kwargs)


def made(place, recipe="configs/demo/rank_detr.py", **wishes):
    """The config that is made of a recipe, once more loaded, and what was said of it."""
    notes = make_config(Wishes(recipe=str(place / recipe), out=place / "my.py", **wishes))
    text = (place / "my.py").read_text()
    assert ast.get_docstring(ast.parse(text)).count("\n- ") >= len(notes)
    assert all(len(line) <= 120 for line in text.splitlines() if str(place) not in line)
    return load_config(str(place / "my.py")), notes


def test_boxes(place):
    cfg, notes = made(place, **coco(place, reorder))
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.classes == ("bird", "dog", "cat")
    assert len(dataset.metainfo.palette) == 3
    assert (dataset.data_root, dataset.ann_file, dataset.data_prefix) == (
        f"{place}/train/", "labels.json", {"img": "images/"},
    )  # fmt: skip
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_dataloader.dataset.data_root == f"{place}/val/"
    assert cfg.model.bbox_head.num_classes == 3
    assert cfg.work_dir == "work_dirs/my"
    assert "train: 4 images and 7 objects" in notes[0]
    assert "3 classes: bird, dog, cat" in notes
    assert "from .configs.demo.rank_detr import *" in (place / "my.py").read_text()
    assert examine(cfg).errors == []
    built = DATASETS.build({**dataset, "pipeline": []})
    assert [entry["bbox_label"] for entry in built[0]["instances"]] == [2, 1, 0]


def test_it_is_below_another_folder(place):
    (place / "runs" / "june").mkdir(parents=True)
    out = place / "runs" / "june" / "my.py"
    wishes = coco(place)
    make_config(Wishes(recipe=str(place / "configs/demo/rank_detr.py"), out=out, **wishes))
    assert "from ...configs.demo.rank_detr import *" in out.read_text()
    assert load_config(str(out)).model.bbox_head.num_classes == 3
    (place / "a-b").mkdir()
    base = out.read_text().replace("from ...configs", "from ..configs")
    (place / "a-b" / "base.py").write_text(base)
    with pytest.raises(UserError, match="a-b/base is none"):
        make_config(Wishes(recipe=str(place / "a-b" / "base.py"), out=place / "my.py", **wishes))


def test_batch_and_learning_rate(place):
    wishes = coco(place)
    cfg, notes = made(place, "configs/rank_detr.py", **wishes)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2e-4 * 2 / 16)
    assert cfg.auto_scale_lr.base_batch_size == 2
    assert any("1 GPU x 2 = 2 images; learning rate 2.5e-05 = 0.0002 x 2 / 16" in note for note in notes)
    assert "# 0.0002 x 2 / 16" in (place / "my.py").read_text()
    cfg, notes = made(place, "configs/rank_detr.py", **wishes, batch_size=4, gpus=4)
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert any("as the recipe's for 16 images" in note for note in notes)
    cfg, _ = made(place, "configs/freqfusion/upernet_r50.py", **masks(place), batch_size=4)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.01 / 4)
    assert cfg.param_scheduler[0].eta_min == pytest.approx(1e-4 / 4)


def test_the_demos_state_their_own_batch(place):
    for name, batch in (("rank_detr", 4), ("arc", 2), ("freqfusion", 8)):
        cfg = load_config(str(place / f"configs/demo/{name}.py"))
        assert cfg.auto_scale_lr.base_batch_size == cfg.train_dataloader.batch_size == batch


def test_a_schedule_of_steps_is_stretched(place):
    cfg, notes = made(place, "configs/rank_detr.py", **coco(place), epochs=100)
    assert cfg.train_cfg.max_iters == 200  # of 90 000
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 11
    assert (cfg.param_scheduler[0].end, cfg.param_scheduler[0].milestones) == (200, [183])
    assert cfg.model.criterion.matcher.change_iter == 150
    assert any("100 epochs of 2 steps" in note for note in notes)
    cfg, _ = made(place, "configs/demo/rank_detr.py", **coco(place), epochs=50)
    assert [(entry.begin, entry.end) for entry in cfg.param_scheduler] == [(0, 5), (0, 50)]
    cfg = load_config(str(place / "configs/freqfusion.py"))
    change = scaled_schedule(cfg, 8000, 16, 160)
    assert change.lines == [
        "train_cfg.max_iters = 80000",
        "train_cfg.val_interval = 8000",
        "default_hooks.checkpoint.interval = 2500",
        "param_scheduler[1].end = 80000",
    ]


def test_a_schedule_of_epochs_is_stretched(place):
    cfg = load_config(str(place / "configs/arc.py"))
    assert scaled_schedule(cfg, 20_000, 2, 36).lines == [
        "train_cfg.max_epochs = 36",
        "train_cfg.val_interval = 3",
        "param_scheduler[1].end = 36",
        "param_scheduler[1].milestones = [24, 33]",
    ]
    assert scaled_schedule(cfg, 20_000, 2, None).lines == []
    assert scaled_schedule(cfg, 100, 2, None).lines == ["param_scheduler[0].end = 60"]
    cfg = load_config(str(place / "configs/demo/arc.py"))
    assert scaled_schedule(cfg, 100, 2, 6).lines == [
        "train_cfg.max_epochs = 6",
        "train_cfg.val_interval = 6",
        "param_scheduler[0].end = 30",
        "param_scheduler[1].end = 300",
        "param_scheduler[1].milestones = [250]",
    ]


def test_classes_that_only_some_files_have(place):
    def no_birds(data):
        data["annotations"] = [entry for entry in data["annotations"] if entry["category_id"] != 3]
        del data["categories"][2]

    cfg, _ = made(place, **coco(place, None, no_birds))
    assert cfg.val_dataloader.dataset.absent == ["bird"]
    assert "absent" not in cfg.train_dataloader.dataset
    assert examine(cfg, ("train", "val")).errors == []
    with pytest.raises(UserError, match=r"has objects of categories that the training data .* do not list: bird"):
        made(place, **coco(place, no_birds))


def test_some_classes(place):
    wishes = coco(place)
    cfg, notes = made(place, **wishes, classes=["dog", "cat"])
    assert cfg.train_dataloader.dataset.metainfo.classes == ("dog", "cat")
    assert cfg.train_dataloader.dataset.subset is cfg.val_dataloader.dataset.subset is True
    assert "classes chosen with --classes; left out: bird" in notes
    assert examine(cfg).errors == []
    with pytest.raises(UserError, match=r"'Dog' \('dog'\?\) is no category of .*: cat, dog, bird"):
        made(place, **wishes, classes=["Dog"])


def export(place, split, file, images, change=None):
    """A split as annotation programs export it: one folder with the file and the images somewhere below."""
    folder = place / "export" / split
    source = write(place / f"source_{split}", change)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / file)
    shutil.copytree(source.parent / "images", folder / images, dirs_exist_ok=True)
    return str(folder)


def roboflow(data):
    data["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    for entry in data["categories"][1:]:
        entry["supercategory"] = "animals"


@pytest.mark.parametrize(
    ("file", "images", "change"),
    [
        ("_annotations.coco.json", "", roboflow),
        ("annotations/instances_default.json", "images/default", None),
        ("annotations/instances_default.json", "images", None),
        ("annotations.json", "JPEGImages", None),
        ("annotations.json", "", lambda d: [i.update(file_name=f"JPEGImages\\{i['file_name']}") for i in d["images"]]),
    ],
)
def test_exports_as_they_come(place, file, images, change):
    if file == "annotations.json" and not images:
        folders = [export(place, split, file, "JPEGImages", change) for split in ("train", "val")]
    else:
        folders = [export(place, split, file, images, change) for split in ("train", "val")]
    cfg, _ = made(place, train=folders[:1], val=folders[1:])
    assert cfg.train_dataloader.dataset.metainfo.classes == ("cat", "dog", "bird")
    assert examine(cfg).errors == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.json": '{"shapes": [], "imagePath": "a.jpg"}', "b.json": "{}"}, "labelme2coco"),
        ({"labels/a.txt": "0 0.5 0.5 0.2 0.1\n"}, "they are YOLO's labels"),
        ({"a.xml": "<annotation/>"}, "Pascal VOC or CVAT"),
        ({"annotations/a.json": "{}", "annotations/b.json": "{}"}, r"several annotation files \(a.json, b.json\)"),
        ({"a.txt": "hello"}, "there is no annotation file"),
    ],
)
def test_other_exports_are_named(place, files, message):
    for name, text in files.items():
        (place / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "export" / name).write_text(text)
    with pytest.raises(UserError, match=message):
        made(place, train=[f"{place}/export"], val=[f"{place}/export"])


def dota(place, split, lines, suffix="png"):
    """A folder of DOTA's layout with one image of 64 pixels."""
    for name in ("images", "annfiles"):
        (place / split / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64)).save(place / split / "images" / f"a.{suffix}")
    (place / split / "annfiles" / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    return [str(place / split)]


SHIP, TANK = "10 10 30 10 30 20 10 20 ship 0", "40 40 50 40 50 50 40 50 storage-tank 1"


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "arc" in name and "hrsc" not in name])
def test_rotated_boxes(place, recipe):
    data = dict(train=dota(place, "train", [TANK, SHIP]), val=dota(place, "val", [SHIP], "jpg"))
    cfg, _ = made(place, recipe, **data)
    assert cfg.train_dataloader.dataset.metainfo.classes == ("ship", "storage-tank")
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator.type.__name__ == "DOTATask1Metric"
    assert "format_only" not in cfg.val_evaluator
    assert cfg.val_cfg.type.__name__ == "ValLoop"
    assert cfg.train_cfg.val_interval >= 1
    assert {setting.value for setting in class_settings(cfg.model)} == {2}
    report = examine(cfg)
    assert report.errors == []
    assert "classes: ship 1, storage-tank " in report.text()
    built = DATASETS.build(cfg.val_dataloader.dataset)
    sample = built[0]["data_samples"]
    assert sample.gt_instances.labels.tolist() == [0]
    for step in cfg.train_dataloader.dataset.pipeline:
        if "upright_labels" in step:
            assert step.upright_labels == (1,)


def test_whole_images_are_remarked_on(place):
    data = dict(train=dota(place, "train", [SHIP]), val=dota(place, "val", [SHIP]))
    _, notes = made(place, "configs/arc.py", **data)
    assert not any("shrunk" in note for note in notes)
    Image.new("L", (1600, 20)).save(place / "train" / "images" / "a.png")
    _, notes = made(place, "configs/arc.py", **data)
    assert any("images of up to 1600 pixels are shrunk to 1024" in note for note in notes)


def test_rotated_boxes_of_other_classes(place):
    data = dict(train=dota(place, "train", [SHIP]), val=dota(place, "val", [TANK]))
    with pytest.raises(UserError, match="--val has objects of storage-tank, which the training data do not have: ship"):
        made(place, "configs/arc.py", **data)
    with pytest.raises(UserError, match="reads data as HrscShips does"):
        made(place, "configs/arc/r50_hrsc.py", **data)
    (place / "train" / "annfiles" / "a.txt").write_text("0 0.5 0.5 0.2 0.1\n")
    with pytest.raises(UserError, match="YOLO"):
        made(place, "configs/arc.py", **data)


def masks(place, values=(0, 1, 2), folder="masks", end=".png", **kwargs):
    """Two splits of an image and a mask of 40 x 30 pixels with bands of values."""
    given = {}
    for split in ("train", "val"):
        for name in ("images", folder):
            (place / f"seg_{split}" / name).mkdir(parents=True, exist_ok=True)
        mask = np.array(values, np.uint8)[np.arange(30) * len(values) // 30][:, None].repeat(40, 1)
        Image.new("RGB", (40, 30)).save(place / f"seg_{split}" / "images" / "a.jpg")
        Image.fromarray(mask).save(place / f"seg_{split}" / folder / f"a{end}")
        given[split] = [f"{place}/seg_{split}"]
    return {**given, "classes": ["sky", "field", "road"], **kwargs}


def _is_of_masks(name):
    return "freqfusion" in name and not any(word in name for word in ("rcnn", "panoptic"))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if _is_of_masks(name)])
def test_masks(place, recipe):
    cfg, _ = made(place, recipe, **masks(place, end="_mask.png"))
    dataset = cfg.train_dataloader.dataset
    assert dataset.type.__name__ == "SegmentationFolders"
    assert dataset.metainfo.classes == ("sky", "field", "road")
    assert (dataset.seg_map_suffix, dataset.reduce_zero_label) == ("_mask.png", False)
    settings = class_settings(cfg.model)
    assert {setting.value for setting in settings if setting.kind == "num_classes"} == {3}
    assert all(setting.value == [1, 1, 1, 0.1] for setting in settings if setting.kind == "class_weight")
    assert ("mask2former" in recipe) == any(setting.kind == "class_weight" for setting in settings)
    report = examine(cfg)
    assert [text for text in report.errors if "seg_train" in text] == []


def test_masks_where_zero_is_unlabelled(place):
    cfg, _ = made(place, "configs/demo/freqfusion.py", **masks(place, (0, 1, 2, 3)), zero_is_unlabelled=True)
    assert cfg.train_dataloader.dataset.reduce_zero_label is True
    assert cfg.model.decode_head.num_classes == 3
    with pytest.raises(UserError, match="names 3 classes, but masks have values up to 3; where 0 is no class, add"):
        made(place, "configs/demo/freqfusion.py", **masks(place, (0, 1, 2, 3)))
    cfg, notes = made(place, "configs/demo/freqfusion.py", **masks(place, classes=None))
    assert cfg.train_dataloader.dataset.metainfo.classes == ("class_0", "class_1", "class_2")
    assert any("masks do not name classes" in note for note in notes)


def test_masks_that_are_none(place):
    with pytest.raises(UserError, match=r"hold only 0 and 255.*value // 255"):
        made(place, "configs/demo/freqfusion.py", **masks(place, (0, 255)))
    with pytest.raises(UserError, match="hold only 0, which is no class"):
        made(place, "configs/demo/freqfusion.py", **masks(place, (0,), classes=None), zero_is_unlabelled=True)
    wishes = masks(place)
    swapped = {split: [f"{wishes[split][0]}/images", f"{wishes[split][0]}/masks"] for split in ("train", "val")}
    with pytest.raises(UserError, match=r"holds no masks|the order is MASKS IMAGES"):
        made(place, "configs/demo/freqfusion.py", **swapped)


def panoptic_maps(place, **kwargs):
    given = {}
    for split in ("train", "val"):
        file = write(place / f"pan_{split}", panoptic)
        write_maps(file.parent / "maps")
        given[split] = [str(file), str(file.parent / "images"), str(file.parent / "maps")]
    return {**given, **kwargs}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if "panoptic" in name])
def test_panoptic_segments(place, recipe):
    cfg, _ = made(place, recipe, **panoptic_maps(place))
    metainfo = cfg.train_dataloader.dataset.metainfo
    assert (metainfo.thing_classes, metainfo.stuff_classes) == (("cat", "dog"), ("bird",))
    for setting in class_settings(cfg.model):
        expected = {"num_things_classes": 2, "num_stuff_classes": 1, "num_classes": 2, "class_weight": [1, 1, 1, 0.1]}
        assert setting.value == expected[setting.kind], setting
    report = examine(cfg, ("train", "val"))
    assert [text for text in report.errors if "smaller than 32" not in text] == []
    with pytest.raises(UserError, match="wants ANNOTATIONS IMAGES MAPS"):
        made(place, recipe, **coco(place))


def test_panoptic_annotations_need_their_recipe(place):
    wishes = panoptic_maps(place)
    with pytest.raises(UserError, match="choose a recipe of panoptic segmentation"):
        made(place, train=wishes["train"][:2], val=wishes["val"][:2])


def _is_of_boxes(name):
    return ("rcnn" in name or "rank_detr" in name) and not any(word in name for word in ("dior", "_tv", "glh_bridge"))


@pytest.mark.parametrize("recipe", [name for name in RECIPES if _is_of_boxes(name)])
def test_every_recipe_of_boxes(place, recipe):
    cfg, _ = made(place, recipe, **coco(place))
    assert {setting.value for setting in class_settings(cfg.model)} == {3}
    assert cfg.val_evaluator.get("ann_file") is None


def test_a_recipe_that_repeats_its_images(place):
    """An epoch of the recipe sees each image twice: as many epochs again see them once."""
    cfg, notes = made(place, "configs/catnet/cat_mask_rcnn_r50_6x_hrsid.py", **coco(place))
    dataset = cfg.train_dataloader.dataset
    assert (dataset.type.__name__, dataset.metainfo.classes) == ("CocoObjects", ("cat", "dog", "bird"))
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[1].milestones) == (72, [56, 68])
    assert any("72 epochs of 2 steps; the recipe's schedule of 36 epochs is stretched" in note for note in notes)
    dataset.filter_cfg.min_size = 0  # these images are small
    assert examine(cfg, ("train", "val")).errors == []
    cfg, _ = made(place, "configs/catnet/cat_mask_rcnn_r50_6x_hrsid.py", **coco(place), epochs=18)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[1].milestones) == (18, [14, 17])


def test_recipes_that_cannot_be_inherited(place):
    with pytest.raises(UserError, match=r"VocObjects does; .*voc_to_coco\.py turns labels of Pascal VOC into COCO's"):
        made(place, "configs/catnet/cat_rcnn_r50_3x_dior.py", **coco(place))
    with pytest.raises(UserError, match="has no validation data"):
        made(place, "configs/catnet/cat_mask_rcnn_r50_3x_isaid_tv.py", **coco(place))


def test_initial_weights_come_from_the_checkpoint(place):
    path = place / "start.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {"dataset_meta": {"classes": ("x", "y")}}}, path)
    cfg, notes = made(place, "configs/rank_detr.py", **coco(place), load_from=str(path))
    assert cfg.load_from == str(path)
    assert cfg.model.backbone.init_cfg is None
    assert any("trained with other classes (x, y): what depends on classes starts anew" in note for note in notes)
    with pytest.raises(UserError, match="does not exist"):
        made(place, **coco(place), load_from="none.pth")


def tiny(place, **wishes):
    cfg, _ = made(place, **coco(place), **wishes)
    cfg.merge_from_dict({**TINY, "train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "randomness.seed": 0})
    cfg.work_dir, cfg.launcher = str(place / "work"), "none"
    return cfg


def test_it_trains_and_starts_from_weights_of_other_classes(place):
    runner = build_train_runner(tiny(place))
    runner.train()
    start = str(place / "work" / "iter_2.pth")
    given = torch.load(start, weights_only=False)
    assert given["meta"]["dataset_meta"]["classes"] == ("cat", "dog", "bird")
    assert "ground_truth" not in given["meta"]["dataset_meta"]

    def loaded(classes):
        given["meta"]["dataset_meta"]["classes"] = classes
        torch.save(given, place / "start.pth")
        cfg = tiny(place, load_from=str(place / "start.pth"))
        cfg.train_cfg.max_iters = 0
        runner = build_train_runner(cfg)
        runner.load_or_resume()
        return {key for key, value in runner.model.state_dict().items() if torch.equal(value, given["state_dict"][key])}

    everything = given["state_dict"].keys()
    assert loaded(("cat", "dog", "bird")) == everything
    for others in (("cat", "bird", "dog"), ("cat", "dog", "cow")):
        kept = loaded(others)
        renewed = everything - kept
        assert {key.split(".")[1] for key in renewed} == {"cls_branches", "rank_adaptive_classhead_emb"}
        assert len(kept) > 0.9 * len(everything)


def test_what_depends_on_classes():
    cfg = Config(dict(model=load_config("configs/demo/rank_detr.py", dict(TINY)).model))
    found = class_dependent(cfg)
    built = MODELS.build(cfg.model).state_dict()
    assert all(6 in built[key].shape for key in found)
    assert {key.split(".")[1] for key in found} == {"cls_branches", "rank_adaptive_classhead_emb"}


def test_the_command(run_tool, place):
    wishes = coco(place)
    arguments = [place / "configs/demo/rank_detr.py", "--train", *wishes["train"], "--val", *wishes["val"]]
    done = run_tool("make_config", *arguments, "--out", place / "my.py")
    assert done.code == 0
    assert f"train: python tools/train.py {place}/my.py" in done.out
    assert run_tool("make_config", *arguments, "--out", place / "my.py").err.startswith("error: ")
    assert "--overwrite replaces it" in run_tool("make_config", *arguments, "--out", place / "my.py").err
    assert "must end in .py" in run_tool("make_config", *arguments, "--out", place / "my").err
    done = run_tool("check_data", place / "my.py", "--sheets", place / "sheets")
    assert done.code == 0
    assert (place / "sheets" / "train.jpg").is_file()
    assert "classes: cat 4, dog 2, bird 1" in done.out
    file = place / "train" / "labels.json"
    data = json.loads(file.read_text())
    data["images"][0]["file_name"] = "gone.png"
    file.write_text(json.dumps(data))
    done = run_tool("check_data", place / "my.py")
    assert done.code == 1
    assert "error: 1 of 4 images are missing" in done.out
    done = run_tool("make_config", *arguments, "--out", place / "my.py", "--overwrite")
    assert done.code == 1
    assert "1 of 4 images are missing" in done.err
