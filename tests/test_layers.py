"""Who may import whom: the table of docs/architecture.md, held by the syntax trees of all modules."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# A layer may import those above it, and of other packages those that it or a layer above it is given.
LAYERS = {
    "perception.ops": {"torch", "torchvision", "numpy"},
    "perception.layers": set(),
    "perception.geometry": {"kornia", "scipy", "shapely"},
    "perception.radiance": {"torchmetrics"},
    "perception.datasets": {
        *("mmengine", "mmcv", "mmdet", "mmseg", "mmrotate", "nuscenes"),
        *("cv2", "PIL", "pycocotools", "msgspec", "tqdm", "plyfile", "laspy", "av"),
    },
    "perception.evaluation": set(),
    "perception.detection": set(),
    "perception.engine": {"matplotlib"},
    "perception.inference": {"open3d", "rasterio", "pyvips", "faiss", "ray"},
    "perception.studio": {"nerfstudio", "rich", "tyro", "yaml", "mpl_toolkits"},
    "perception.commands": {"argcomplete"},
    "projects": {"einops", "diffusers", "transformers", "skimage", "trimesh"},
}
# Standard library only, and of use everywhere: errors for the user, and files that are whole or not there.
COMMON = {"perception.engine.errors", "perception.engine.atomic"}
# Importing `perception` answers for compiled mmcv operators and the like, by names and when they are asked for.
ROOTS = {"perception", "perception.debug_prints"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the two packages, by its dotted name."""
    return {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("perception", "projects")
        for path in (REPOSITORY / package).rglob("*.py")
    }


@cache
def imports(module: str) -> list[str]:
    """What a module imports anywhere in it, types that only checkers read aside, as names of modules."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return [_module_of(name) for name in _imported(ast.parse(path.read_text()), package)]


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imported(child, package)


def _module_of(name: str) -> str:
    """A module of ours where the name is one or is in one, else the name of another package."""
    top = name.partition(".")[0]
    if top not in ("perception", "projects"):
        return top
    return name if name in modules() else name.rpartition(".")[0]


def layer(module: str) -> str | None:
    """The row of the table that a module belongs to."""
    return next((name for name in LAYERS if module == name or module.startswith(f"{name}.")), None)


def may_import(importer: str, imported: str) -> bool:
    """Whether the table lets the first module import the second, or a package that is not ours."""
    rows = list(LAYERS)
    own = rows.index(layer(importer))
    if imported in modules():
        return imported in COMMON | ROOTS or rows.index(layer(imported)) <= own
    granted = set().union(*(LAYERS[row] for row in rows[: own + 1]))
    return imported in granted or imported in sys.stdlib_module_names


def test_imports_go_up_the_table_only():
    wrong = [
        f"{importer} imports {imported}"
        for importer in modules()
        if importer not in ROOTS
        for imported in imports(importer)
        if not may_import(importer, imported)
    ]
    assert wrong == []


def test_a_project_never_imports_a_project():
    def project(module: str) -> str:
        return module.split(".")[1] if module.startswith("projects.") else ""

    wrong = [
        f"{importer} imports {imported}"
        for importer in modules()
        for imported in imports(importer)
        if project(importer) and project(imported) and project(importer) != project(imported)
    ]
    assert wrong == []


def test_what_everybody_imports_needs_the_standard_library_only():
    for module in (*COMMON, "perception.engine", *ROOTS):
        ours = {name for name in imports(module) if name in modules()}
        others = {name for name in imports(module) if name not in modules()}
        assert others <= sys.stdlib_module_names, module
        assert ours <= COMMON | ROOTS | {"perception.engine.torchrun"}, module


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: {name for name in imports(module) if name in modules()} - {module} for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("perception.ops.nms_rotated", "torch", True),
        ("perception.ops.nms_rotated", "mmdet", False),
        ("perception.geometry.rays", "perception.ops.nms_rotated", True),
        ("perception.ops.nms_rotated", "perception.geometry.rays", False),
        ("perception.datasets.dota", "perception.engine.errors", True),
        ("perception.datasets.dota", "perception.engine.run", False),
        ("perception.inference.folder", "nerfstudio", False),
        ("projects.vqrf.model", "nerfstudio", True),
    ],
)
def test_the_rule_itself(importer, imported, allowed):
    assert may_import(importer, imported) is allowed
