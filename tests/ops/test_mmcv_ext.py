"""The stand-in for mmcv's compiled half: how it is found, what it declares and what it says of the rest."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import mmcv.ops
import pytest
import torch
from mmcv import _ext

import perception
from perception.ops import mmcv_ext

ROOT = Path(perception.__file__).parents[1]


def test_every_function_is_one_that_mmcv_asks_for():
    """And takes the arguments that mmcv's own binding declares."""
    binding = (Path(mmcv.ops.__file__).parent / "csrc" / "pytorch" / "pybind.cpp").read_text()
    declared = {}
    for name, rest in re.findall(r'm\.def\(\s*"(\w+)",(.*?)\);', binding, re.DOTALL):
        declared.setdefault(name, []).append(set(re.findall(r'py::arg\("(\w+)"\)', rest)))
    provided = [name for name, f in vars(mmcv_ext).items() if inspect.isfunction(f) and not name.startswith("_")]
    assert len(provided) > 50
    for name in provided:
        assert name in declared, name
        arguments = set(inspect.signature(getattr(mmcv_ext, name)).parameters)
        assert not any(declared[name]) or arguments in declared[name], (name, arguments, declared[name])


def test_other_operators_say_so_when_called():
    for name in ("tin_shift_forward", "an_operator_of_the_future"):
        assert hasattr(_ext, name)
        with pytest.raises(NotImplementedError, match=rf"{name}.*compiled.*issue"):
            getattr(_ext, name)(1, two=2)
    with pytest.raises(NotImplementedError, match="border_align_forward"):
        mmcv.ops.border_align(torch.zeros(1, 4, 3, 3), torch.zeros(1, 9, 4), 2)
    for name in ("__path__", "_private"):
        assert not hasattr(_ext, name)
        assert not hasattr(mmcv_ext, name)


def test_environment_report_names_the_operators():
    assert "perception" in mmcv.ops.get_compiler_version()
    assert mmcv.ops.get_compiling_cuda_version() == "not available"


def run(code, *path):
    command = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n{code}"
    return subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_steps_aside_for_a_compiled_extension(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    code = "import perception, importlib.util; from mmcv import _ext; print(_ext.__spec__.origin, hasattr(_ext, 'nms'))"
    assert run(code, tmp_path, ROOT) == ["perception.ops.mmcv_ext", "True"]
    (tmp_path / "mmcv" / "_ext.py").write_text("compiled = True")
    assert run(code, tmp_path, ROOT) == [str(tmp_path / "mmcv" / "_ext.py"), "False"]


def test_importing_the_package_is_light():
    heavy = "{'torch', 'mmcv', 'mmengine', 'numpy'}"
    assert run(f"import perception; print(sorted({heavy} & set(sys.modules)))", ROOT) == ["[]"]


def test_one_finder_however_often_the_package_is_imported():
    def finders():
        return [f for f in sys.meta_path if type(f).__name__ == "_StandInFinder"]

    assert len(finders()) == 1
    importlib.reload(perception)
    assert len(finders()) == 1
    assert finders()[0].find_spec("mmcv.ops") is None
