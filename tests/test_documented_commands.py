"""Every command in the README files and docs is run by a test, or says on its page why it is not.

A command that takes minutes, or needs what a test has not, is run shrunk by the test that ``RUN_BY`` names. One that no
test runs has a comment on its page, ``<!-- not run by tests: "COMMAND": REASON -->``; COMMAND is how it begins.
"""

import ast
import re
import runpy
import shlex
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import torch

from perception import commands as perception_commands
from perception.ops import build
from tests.conftest import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
    *sorted(REPOSITORY.glob("projects/*/README.md")),
    *sorted(REPOSITORY.glob("benchmarks/*.md")),
]

# Beginnings of commands, and the test that runs them.
RUN_BY = {
    "perception --help": "tests/test_commands.py::test_help_lists_every_command",
    "perception print-config rank_detr": "tests/test_commands.py::test_recipes_by_name_on_the_command_line",
    "python tools/print_config.py": "tests/tools/test_tools.py::test_print_config",
    "python tools/make_demo_data.py shapes": "tests/datasets/test_shapes.py::test_command_line_makes_the_same_files",
    "python tools/make_demo_data.py regions": "tests/test_documented_commands.py::test_regions_are_made",
    "python tools/make_demo_data.py cities": "tests/test_documented_commands.py::test_cities_are_made",
    "python tools/train.py configs/adaformer.py": (
        "tests/projects/adaformer/test_training.py::test_tools_train_and_test"
    ),
    "python tools/infer.py configs/adaformer.py": (
        "tests/projects/adaformer/test_training.py::test_tools_train_and_test"
    ),
    "python tools/test.py configs/adaformer.py": (
        "tests/projects/adaformer/test_training.py::test_tools_train_and_test"
    ),
    "python tools/train.py configs/demo/siamcut.py": (
        "tests/projects/adaformer/test_training.py::test_demos_train_and_evaluate"
    ),
    "python tools/test.py configs/demo/siamcut.py": (
        "tests/projects/adaformer/test_training.py::test_demos_train_and_evaluate"
    ),
    "python tools/convert_checkpoint.py adaformer": (
        "tests/projects/adaformer/test_converter.py::test_both_ways_give_back_the_same_weights"
    ),
    "python tools/train.py configs/unifygeo.py": (
        "tests/projects/unifygeo/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/train.py configs/demo/unifygeo.py": (
        "tests/projects/unifygeo/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/test.py configs/unifygeo.py": (
        "tests/projects/unifygeo/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/retrieve.py": "tests/projects/unifygeo/test_training.py::test_tools_train_and_test_the_demo",
    "python tools/train.py configs/bevformer_v2.py": (
        "tests/projects/bevformer_v2/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/test.py configs/bevformer_v2.py": (
        "tests/projects/bevformer_v2/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python benchmarks/driving_baseline.py": ("tests/evaluation/test_nuscenes.py::test_the_same_boxes_for_every_frame"),
    "python tools/train.py configs/demo/bevformer_v2.py": (
        "tests/projects/bevformer_v2/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/infer.py configs/demo/bevformer_v2.py": (
        "tests/projects/bevformer_v2/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/infer.py configs/bevformer_v2.py": (
        "tests/projects/bevformer_v2/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/convert_checkpoint.py bevformer_v2": "tests/projects/bevformer_v2/test_converter.py::test_tool",
    "python tools/convert_checkpoint.py nerf_4k": (
        "tests/projects/nerf_4k/test_converter.py::test_encoder_there_and_back"
    ),
    "python tools/convert_checkpoint.py unifygeo": "tests/projects/unifygeo/test_converter.py::test_tool",
    "python tools/make_demo_data.py driving": "tests/datasets/test_driving.py::test_command_writes_it",
    "python tools/make_demo_data.py glossy": "tests/datasets/test_glossy.py::test_command_writes_it",
    "python tools/convert_checkpoint.py rise_sdf": "tests/projects/rise_sdf/test_converter.py::test_tool",
    "rise-sdf relight": "tests/projects/rise_sdf/test_method.py::test_command_relights",
    "rise-sdf mesh": "tests/projects/rise_sdf/test_method.py::test_command_writes_a_mesh",
    "rise-sdf light": "tests/projects/rise_sdf/test_method.py::test_command_writes_the_light",
    "python tools/make_demo_data.py radiance": "tests/datasets/test_synthetic_radiance.py::test_command_writes_it",
    "python tools/make_demo_data.py harbours": (
        "tests/tools/test_split_dota.py::test_aerial_pictures_are_made_as_the_page_says"
    ),
    "python tools/make_demo_data.py bridges": "tests/datasets/test_bridges.py::test_command_writes_it",
    "python tools/dataset_converters/split_dota.py": (
        "tests/tools/test_split_dota.py::test_commands_of_the_page_of_data"
    ),
    "python tools/dataset_converters/nuscenes.py": "tests/datasets/test_nuscenes_infos.py::test_the_tool",
    "python tools/dataset_converters/split_coco.py": (
        "tests/projects/catnet/test_recipes.py::test_commands_of_the_page_of_data"
    ),
    "python tools/dataset_converters/voc_to_coco.py": (
        "tests/projects/catnet/test_recipes.py::test_commands_of_the_page_of_data"
    ),
    "python tools/dataset_converters/prepare_dior.py": (
        "tests/datasets/test_voc.py::test_dior_gets_its_layout_and_names"
    ),
    "python tools/dataset_converters/split_pyramid.py": "tests/tools/test_split_pyramid.py::test_commands_of_the_pages",
    "python tools/merge_stages.py": "tests/projects/hbd_net/test_detector.py::test_tool_merges",
    "python tools/train.py configs/hbd_net.py": "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages",
    "python tools/train.py configs/hbd_net/native.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/train.py configs/hbd_net/from_stages.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/test.py configs/hbd_net/merged.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/train.py configs/demo/hbd_net_native.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/train.py configs/demo/hbd_net_reduced.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/train.py configs/demo/hbd_net.py": "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages",
    "python tools/train.py configs/demo/hbd_net_plain.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/test.py configs/demo/hbd_net_merged.py": (
        "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages"
    ),
    "python tools/test.py configs/demo/hbd_net.py": "tests/projects/hbd_net/test_training.py::test_the_demo_in_stages",
    "python tools/dataset_converters/split_vhr10.py": "tests/tools/test_split_vhr10.py::test_the_command",
    "python tools/train.py configs/rank_detr.py": "tests/tools/test_tools.py::test_train_then_test",
    "python tools/train.py configs/rank_detr.py --resume": (
        "tests/projects/rank_detr/test_training.py::test_resumed_run_equals_the_uninterrupted_one"
    ),
    "torchrun --nproc_per_node 8 tools/train.py configs/rank_detr.py --launcher pytorch": (
        "tests/projects/rank_detr/test_training.py::test_two_processes_hold_the_same_weights_also_after_a_resume"
    ),
    "python tools/test.py configs/rank_detr.py": "tests/tools/test_tools.py::test_train_then_test",
    "python tools/test.py CONFIG CHECKPOINT --show-dir": "tests/tools/test_tools.py::test_train_then_test",
    "python tools/train.py configs/arc.py": (
        "tests/projects/arc/test_training.py::test_resumed_run_equals_the_uninterrupted_one"
    ),
    "python tools/train.py configs/demo/arc.py": (
        "tests/projects/arc/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/test.py configs/demo/arc.py": (
        "tests/projects/arc/test_training.py::test_tools_train_and_test_the_demo"
    ),
    "python tools/test.py configs/arc.py": "tests/projects/arc/test_training.py::test_tools_train_and_test_the_demo",
    "python tools/train.py configs/demo/catnet.py": (
        "tests/projects/catnet/test_training.py::test_tools_train_test_and_infer"
    ),
    "python tools/test.py configs/demo/catnet.py": (
        "tests/projects/catnet/test_training.py::test_tools_train_test_and_infer"
    ),
    "python tools/infer.py configs/demo/catnet.py": (
        "tests/projects/catnet/test_training.py::test_tools_train_test_and_infer"
    ),
    "python tools/train.py configs/demo/freqfusion.py": "tests/projects/freqfusion/test_training.py::test_tools",
    "python tools/test.py configs/demo/freqfusion.py": "tests/projects/freqfusion/test_training.py::test_tools",
    "python tools/infer.py CONFIG CHECKPOINT FOLDER --out OUT --engine ray": (
        "tests/inference/test_ray.py::test_a_driver_is_killed_and_another_engine_goes_on"
    ),
    "python tools/infer.py CONFIG": (
        "tests/inference/test_folder.py::TestCommandLine::test_all_done_is_0_and_says_where_things_are"
    ),
    "python tools/infer.py configs/rank_detr.py": "tests/tools/test_demo.py::test_the_demo",
    "python tools/infer.py configs/demo/freqfusion.py": (
        "tests/inference/images/test_tiled.py::test_label_maps_are_those_of_mmseg"
    ),
    "python tools/infer.py configs/hbd_net.py": "tests/projects/hbd_net/test_folder.py::test_the_command_of_the_page",
    "python tools/infer.py configs/arc.py": (
        "tests/inference/images/test_tiled.py::test_objects_of_a_large_image_are_found_once"
    ),
    "python tools/infer.py configs/freqfusion.py": (
        "tests/inference/images/test_tiled.py::test_label_maps_of_tiles_join_without_a_seam"
    ),
    "python tools/convert_checkpoint.py rank_detr": "tests/tools/test_tools.py::test_convert_checkpoint",
    "python tools/convert_checkpoint.py arc": (
        "tests/projects/arc/test_backbone.py::test_a_detector_is_converted_there_and_back"
    ),
    "python tools/convert_checkpoint.py arc data/pretrained/resnet50-0676ba61.pth": (
        "tests/projects/arc/test_backbone.py::test_a_plain_resnet_becomes_a_start"
    ),
    "python tools/convert_checkpoint.py freqfusion": "tests/projects/freqfusion/test_converter.py::test_tool",
    "python tools/make_config.py": "tests/engine/test_make_config.py::test_the_command",
    "python tools/check_data.py": "tests/engine/test_make_config.py::test_the_command",
    "python tools/train.py my.py": (
        "tests/engine/test_make_config.py::test_it_trains_and_starts_from_weights_of_other_classes"
    ),
    "python tools/convert_checkpoint.py catnet": "tests/projects/catnet/test_detectors.py::test_tool",
    "python tools/convert_checkpoint.py hbd_net": "tests/projects/hbd_net/test_detectors.py::test_tool",
    "python tools/gpu_check.py": "tests/tools/test_gpu_check.py::test_its_comparisons_find_no_difference",
    "python -m perception.ops": "tests/ops/test_backend.py::test_every_operator_is_reported",
    "python -m perception.ops.build --help": "tests/test_documented_commands.py::test_help_of_the_build",
    "make demo": "tests/tools/test_demo.py::test_the_demo",
    "python tools/make_demo_data.py shelves": "tests/datasets/test_shelves.py::test_command_writes_it",
    "python tools/dataset_converters/shrink_images.py": "tests/datasets/test_shrinking.py::test_the_command",
    "spiral-path": "tests/studio/test_llff_images.py::test_the_spiral_is_a_path_that_can_be_rendered",
    "check-scene --data data/demo/shelves": "tests/studio/test_llff_images.py::test_check_scene_says_what_is_paired",
    "check-scene": "tests/studio/test_check_scene.py::test_command",
    "imrc": "tests/studio/test_imrc.py::test_command",
    "python tools/make_demo_data.py juggling": (
        "tests/projects/streamrf/test_built_in_video.py::test_it_is_made_and_read"
    ),
    "ns-train streamrf": "tests/projects/streamrf/test_training.py::test_a_run_leaves_its_stream",
    "ns-train": "tests/projects/vqrf/test_method.py::test_a_run_leaves_what_it_should",
    "ns-eval": "tests/studio/test_toy_method.py::test_ns_eval_measures_the_test_views",
    "ns-render dataset": "tests/studio/test_toy_method.py::test_ns_render_writes_what_the_model_shows",
    "ns-render camera-path": "tests/projects/vqrf/test_tools.py::test_a_crop_shows_what_is_inside_on_its_colour",
    "ns-export pointcloud": "tests/projects/vqrf/test_tools.py::test_point_cloud_lies_on_the_surface",
    "ns-train activenerf": "tests/projects/activenerf/test_training.py::test_views_are_acquired",
    "ns-train activenerf-tiny": "tests/projects/activenerf/test_training.py::test_views_are_acquired",
    "activenerf map": "tests/projects/activenerf/test_next.py::test_maps",
    "activenerf next": "tests/projects/activenerf/test_next.py::test_poses_are_ranked",
    "python tools/convert_checkpoint.py activenerf": (
        "tests/projects/activenerf/test_training.py::test_checkpoints_there_and_back"
    ),
    "dn2n render": "tests/projects/dn2n/test_method.py::test_an_unseen_scene_is_rendered_and_edited",
    "dn2n render --weights": "tests/projects/dn2n/test_method.py::test_published_weights_render_without_a_run",
    "dn2n edit": "tests/projects/dn2n/test_method.py::test_an_unseen_scene_is_rendered_and_edited",
    "dn2n edit-training": "tests/projects/dn2n/test_method.py::test_edits_to_train_on_are_made_by_a_command",
    "python tools/make_demo_data.py scenes": "tests/projects/dn2n/test_method.py::test_demo_scenes_are_made",
    "python tools/convert_checkpoint.py dn2n": "tests/projects/dn2n/test_method.py::test_tool_converts_there_and_back",
    "streamrf info": "tests/projects/streamrf/test_container.py::test_info_and_decode",
    "streamrf verify": "tests/projects/streamrf/test_container.py::test_info_and_decode",
    "streamrf decode": "tests/projects/streamrf/test_container.py::test_info_and_decode",
    "streamrf export": "tests/projects/streamrf/test_container.py::test_the_authors_files_there_and_back",
    "streamrf import": "tests/projects/streamrf/test_container.py::test_the_authors_files_there_and_back",
    "streamrf render": "tests/projects/streamrf/test_playback.py::test_a_path_and_a_camera_are_rendered",
    "vqrf info": "tests/projects/vqrf/test_method.py::test_packing_a_finished_run_gives_its_file",
    "vqrf pack": "tests/projects/vqrf/test_method.py::test_packing_a_finished_run_gives_its_file",
    "vqrf render": "tests/projects/vqrf/test_method.py::test_file_renders_what_the_run_renders",
    "vqrf render field.vqrf --camera-path": "tests/projects/vqrf/test_method.py::test_camera_path_is_rendered",
    "vqrf import": "tests/projects/vqrf/test_released.py::test_folder_gives_the_same_field",
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPTS = "|".join(
    point.name for point in metadata.distribution("perception").entry_points.select(group="console_scripts")
)
PROGRAM = re.compile(rf"([A-Z_]+=\S+ )*(\.venv/bin/\S+|python3?|bash|make|pip|source|torchrun|ns-\w+|vips|{SCRIPTS})\s")
NOT_RUN = re.compile(r'<!--\s*not run by tests:\s*"([^"]+)":\s*(.+?)\s*-->', re.DOTALL)


@cache
def commands(page: Path) -> list[str]:
    """The commands of a page, their words one blank apart: lines of blocks that name no language, and inline code."""
    text = NOT_RUN.sub("", page.read_text())
    lines = [line for language, body in FENCE.findall(text) if not language for line in _lines(body)]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return [" ".join(found) for found in map(_words, [*lines, *inline]) if found]


def _lines(body: str) -> list[str]:
    whole = (line.partition(" #")[0] for line in body.replace("\\\n", " ").splitlines())
    return [part for line in whole for part in line.split("&&")]


def _words(line: str) -> list[str]:
    return line.split() if PROGRAM.match(line.strip()) else []


def covering(command: str, beginnings: list[str]) -> list[str]:
    """Those beginnings that a command has, word by word."""
    words = command.split()
    return [beginning for beginning in beginnings if words[: len(beginning.split())] == beginning.split()]


ALL = [(page, command) for page in PAGES for command in commands(page)]
IDS = [f"{page.relative_to(REPOSITORY)}: {command}" for page, command in ALL]


@pytest.mark.parametrize(("page", "command"), ALL, ids=IDS)
def test_a_command_is_run_or_says_why_not(page, command):
    assert covering(command, [*RUN_BY, *(start for start, _ in NOT_RUN.findall(page.read_text()))]), (
        f"add it to RUN_BY, or a comment to its page: {NOT_RUN.pattern}"
    )


def test_pages_have_commands():
    assert len(ALL) > 60
    assert {page.parent.name for page, _ in ALL if page.parent.parent.name == "projects"} == {
        path.name for path in (REPOSITORY / "projects").iterdir() if (path / "README.md").is_file()
    }


@pytest.mark.parametrize(("start", "test"), RUN_BY.items())
def test_the_tests_that_run_commands_exist(start, test):
    path, *names = test.split("::")
    body = ast.parse((REPOSITORY / path).read_text()).body
    for name in names:
        found = [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name]
        assert found, f"there is no {name} in {path}"
        body = found[0].body
    assert any(covering(command, [start]) for _, command in ALL), f"no page has {start}"


def test_reasons_belong_to_commands():
    for page in PAGES:
        for start, reason in NOT_RUN.findall(page.read_text()):
            assert any(covering(command, [start]) for command in commands(page)), f"{page} has no {start}"
            assert len(reason.split()) >= 3, reason


def test_tools_understand_their_commands(monkeypatch):
    """The options exist, and so does the config; gpu_check parses its own in its `main`."""
    monkeypatch.chdir(REPOSITORY)
    path = [*sys.path]
    tools, named = {}, re.compile(r"run_tool\(\"([\w-]+)\"\)")
    for command in {command for _, command in ALL if command.startswith("python tools/") and "--help" not in command}:
        name, *arguments = shlex.split(command)[1:]
        monkeypatch.setattr("sys.argv", [name, *arguments])
        monkeypatch.setattr("sys.path", [*path])  # a tool may change it
        if shared := named.search(Path(name).read_text()):
            args = perception_commands.load_command(shared[1]).make_parser(arguments).parse_args(arguments)
        elif name == "tools/gpu_check.py":
            continue
        else:
            if name not in tools:
                tools[name] = runpy.run_path(name)
            args = tools[name]["parse_args"]()
        config = getattr(args, "config", "CONFIG")
        assert config in ("CONFIG", "my.py") or Path(config).is_file(), command  # my.py: what make_config writes


@pytest.mark.slow
def test_nerfstudio_understands_its_commands():
    import tyro
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    trains = {command for _, command in ALL if command.startswith("ns-train") and "--data" in command}
    assert len(trains) >= 2
    for command in trains:
        words = command.split()
        config = tyro.cli(AnnotatedBaseConfigUnion, args=words[1:])
        assert config.method_name == words[1]
        assert str(config.data) == words[words.index("--data") + 1]


def test_regions_are_made(run_tool, tmp_path):
    done = run_tool("make_demo_data", "regions", "--out", tmp_path / "regions", "--num-train", 2, "--num-val", 1)
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("regions/images/training/*.jpg"))) == 2
    assert len(list(tmp_path.glob("regions/annotations/validation/*.png"))) == 1


def test_cities_are_made(run_tool, tmp_path):
    small = ("--tiles-per-side", 3, "--train-cameras", 2, "--test-cameras", 1, "--tile-pixels", 64)
    done = run_tool("make_demo_data", "cities", "--out", tmp_path / "cities", *small)
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("cities/Ashford/satellite/*.png"))) == 9
    assert len(list(tmp_path.glob("cities/*/panorama/*.jpg"))) == 6


def test_help_of_the_build(capsys):
    with pytest.raises(SystemExit) as end:
        build.main(["--help"])
    assert end.value.code == 0
    assert "--cuda" in capsys.readouterr().out


def test_python_of_the_pages_runs():
    """Blocks of Python, with feature maps of halving size under the names that they use."""
    given = {f"c{level}": torch.rand(1, 256, 2 ** (6 - level), 2 ** (6 - level)) for level in range(2, 6)}
    given |= {f"s{i}": torch.rand(1, channels, 2 ** (4 - i), 2 ** (4 - i)) for i, channels in enumerate((64, 160, 256))}
    pages = [page for page in PAGES if page.name == "README.md"]  # elsewhere, blocks show how code looks
    blocks = [body for page in pages for language, body in FENCE.findall(page.read_text()) if language == "python"]
    assert blocks
    for body in blocks:
        exec(body, dict(given))
