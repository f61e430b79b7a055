"""Every process of an environment finds what perception provides for other packages, and pays nothing for it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SOURCES = REPOSITORY / "startup"
HOOK = "perception_stand_ins.pth", "_perception_stand_ins.py"


def run(code, *, site):
    """A Python that knows nothing but one folder of packages."""
    command = f"import site; site.addsitedir({str(site)!r})\n{code}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", command], capture_output=True, text=True, cwd=site, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def site(tmp_path) -> Path:
    """Packages: the hook, an mmcv without operators, and a perception that brings its own finder."""
    for name in HOOK:
        (tmp_path / name).write_bytes((SOURCES / name).read_bytes())
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    package = tmp_path / "perception"
    (package / "ops").mkdir(parents=True)
    for module in (REPOSITORY / "perception").glob("*.py"):
        (package / module.name).write_bytes(module.read_bytes())
    (package / "ops" / "__init__.py").touch()
    (package / "ops" / "mmcv_ext.py").write_text("def nms(): return 'ours'\n")
    return tmp_path


FIND = """
import sys, mmcv
before = "perception" in sys.modules
try:
    from mmcv import _ext
    print(before, _ext.__spec__.origin, "perception" in sys.modules)
except ImportError as error:
    print(before, type(error).__name__, str(error).replace(" ", "_"))
"""


def test_operators_are_found_and_nothing_is_imported_before(site):
    assert run(FIND, site=site) == ["False", "perception.ops.mmcv_ext", "True"]
    started = "import sys; print(sorted(m for m in sys.modules if 'perception' in m))"
    assert run(started, site=site) == ["['_perception_stand_ins']"]


def test_steps_aside_for_a_compiled_extension(site):
    (site / "mmcv" / "_ext.py").write_text("compiled = True")
    assert run(FIND, site=site) == ["False", str(site / "mmcv" / "_ext.py"), "False"]


def test_without_perception_mmcv_is_as_without_the_hook(site):
    (site / "perception").rename(site / "elsewhere")
    before, kind, message = run(FIND, site=site)
    assert (before, kind) == ("False", "ImportError")
    assert message.startswith("cannot_import_name_'_ext'_from_'mmcv'")
    absent = (
        "import importlib.util; print(importlib.util.find_spec('mmcv._ext'), importlib.util.find_spec('panopticapi'))"
    )
    assert run(absent, site=site) == ["None", "None"]
    (site / "perception").mkdir()  # another package of this name
    assert run(absent, site=site) == ["None", "None"]


def test_a_broken_perception_is_named_only_where_it_is_needed(site):
    (site / "perception" / "__init__.py").write_text("raise RuntimeError('half installed')")
    assert run("import sys, mmcv, json; print('perception' in sys.modules)", site=site) == ["False"]
    failing = "try:\n    import mmcv._ext\nexcept ModuleNotFoundError as error:\n    print(error.name, error)"
    name, *message = run(failing, site=site)
    assert name == "mmcv._ext"
    assert "RuntimeError: half installed" in " ".join(message)


def test_costs_less_than_two_milliseconds(site):
    code = f"""
import sys, time
sys.path.insert(0, {str(site)!r})
import _perception_stand_ins
times = []
for _ in range(20):
    del sys.modules["_perception_stand_ins"]
    start = time.perf_counter()
    import _perception_stand_ins; _perception_stand_ins.install()
    times.append(time.perf_counter() - start)
print(min(times))
"""
    assert float(run(code, site=site)[0]) < 2e-3


def test_this_environment_has_the_hook():
    installed = importlib.util.find_spec("_perception_stand_ins")
    assert installed is not None, "install the project again: make setup"
    folder = Path(installed.origin).parent
    for name in HOOK:
        assert (folder / name).read_bytes() == (SOURCES / name).read_bytes(), "install the project again: make setup"


@pytest.mark.slow
def test_the_metric_of_mmrotate_works_in_a_fresh_process_and_in_its_pool(tmp_path):
    script = REPOSITORY / ".ci" / "check_operators.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "find mmcv's operators" in done.stdout
