"""The chooser between reference and native kernels, what it reports, and the command that builds them."""

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from perception.ops import __main__ as report
from perception.ops import backend, build, registration
from perception.ops.carafe import carafe
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A build folder of its own, with a file where the library would be, and a manifest that fits it."""
    monkeypatch.setenv("PERCEPTION_OPS_BUILD", str(tmp_path))
    library = tmp_path / backend.LIBRARY
    library.write_bytes(b"not a library")
    (tmp_path / backend.MANIFEST).write_text(json.dumps(backend.manifest(library, cuda=False)))
    return tmp_path


def change(folder, **values):
    path = folder / backend.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_without_a_build_the_references_run_silently(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PERCEPTION_OPS_BUILD", str(tmp_path))
    devices, reason = backend._load()
    assert not devices
    assert "make ops" in reason
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"torch": "1.2.3"}, "was built for torch 1.2.3"),
        ({"capability": "VSX"}, "was built for a processor with VSX"),
        ({"sources": "0"}, "is older than its sources"),
        ({"library": "0"}, "is damaged"),
        ({}, "cannot be loaded"),
    ],
)
def test_a_library_that_does_not_fit_is_left_alone_with_one_line(folder, caplog, values, expected):
    change(folder, **values)
    with caplog.at_level(logging.WARNING, logger="perception.ops"):
        devices, reason = backend._load()
    assert not devices
    assert expected in reason
    (record,) = caplog.records
    assert expected in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"torch": 1}'])
def test_a_library_without_a_readable_manifest_is_left_alone(folder, content):
    path = folder / backend.MANIFEST
    path.unlink() if content is None else path.write_text(content)
    assert "has no readable manifest" in backend._load()[1]


def test_a_library_for_a_lesser_processor_fits(folder):
    change(folder, capability="DEFAULT")
    assert "cannot be loaded" in backend._load()[1]


def test_native_kernels_can_be_demanded(monkeypatch):
    monkeypatch.setattr(backend, "_mode", "auto")
    monkeypatch.setattr(backend, "_devices", frozenset())
    monkeypatch.setattr(backend, "_reason", "there is no library")
    features, masks = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert carafe(features, masks, 1, 1, 1).shape == (1, 1, 2, 2)
    with backend.use("native"), pytest.raises(backend.Unavailable, match="there is no library"):
        carafe(features, masks, 1, 1, 1)
    with pytest.raises(ValueError, match="auto, native, reference"):
        backend.use("fast").__enter__()


def test_other_types_and_devices_take_the_reference(monkeypatch):
    monkeypatch.setattr(backend, "_devices", frozenset({"cpu"}))
    monkeypatch.setattr(backend, "_mode", "auto")
    assert "knn" in registration.kernels()
    assert backend.native("knn", torch.zeros(1))
    assert not backend.native("knn", torch.zeros(1, dtype=torch.float16))
    assert not backend.native("knn", torch.zeros(1), torch.zeros(1, device="meta"))
    assert not backend.native("knn", torch.zeros(1, device="meta"))


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, **environment}
    )


@pytest.mark.slow
def test_the_environment_chooses(tmp_path):
    listed = run("-m", "perception.ops", PERCEPTION_OPS="reference")
    assert listed.returncode == 0
    assert "PERCEPTION_OPS=reference" in listed.stdout
    assert "0 of" in listed.stdout
    wrong = run("-c", "import perception.ops.backend", PERCEPTION_OPS="fast")
    assert wrong.returncode != 0
    assert "PERCEPTION_OPS must be one of auto, native, reference, not 'fast'" in wrong.stderr


def test_every_operator_is_reported(monkeypatch):
    monkeypatch.setattr(backend, "_devices", frozenset({"cpu", "cuda"}))
    rows = dict(report.report())
    assert rows["carafe"] == "native on CPU and CUDA (bfloat16, float16, float32, float64)"
    assert rows["three_nn"].startswith("native")
    assert rows["nms"] == "torchvision's kernels"
    assert rows["psa_mask"].startswith("reference")
    assert rows["masked_adam"].startswith("native")
    assert not {"backend", "build", "mmcv_ext", "polygons", "registration"} & set(rows)
    assert {kernel.operator for kernel in registration.kernels().values()} <= set(rows)


def test_missing_compilers_are_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit) as stop:
        build.main(["--no-cuda", "--out", str(tmp_path)])
    assert stop.value.code == "no C++ compiler: 'no-such-compiler' is not on the PATH; install g++ or set CXX"
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(build, "cuda_compiler", lambda: None)
    with pytest.raises(SystemExit) as stop:
        build.main(["--check-cuda", "--out", str(tmp_path)])
    assert "nvcc was not found" in stop.value.code


def test_architectures(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0; 9.0a 10.0+PTX;")
    assert build._architecture_flags() == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=compute_100",
    ]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
    with pytest.raises(build.BuildError, match="names 'Hopper'"):
        build._architecture_flags()


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_a_source_that_does_not_compile_is_reported_and_what_was_built_stays(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.cpp", tmp_path / "bad.cpp"
    good.write_text("int one() { return 1; }\n")
    bad.write_text("int two( { return 2; }\n")
    monkeypatch.setattr(backend, "SOURCES", tmp_path)
    (first,) = build.compile_all([good], tmp_path / "objects")
    written = first.stat().st_mtime_ns
    with pytest.raises(build.BuildError, match=r"bad\.cpp"):
        build.compile_all([good, bad], tmp_path / "objects")
    assert first.stat().st_mtime_ns == written  # not compiled again
    build.link([first], tmp_path / "library.so", cuda=False)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("built", "capability", "expected"),
    [
        ("9.0", (9, 0), True),
        ("8.0", (8, 6), True),
        ("8.6", (8, 0), False),
        ("8.0;9.0", (10, 0), False),
        ("8.0;9.0+PTX", (10, 0), True),
        ("8.0; 9.0a", (9, 0), True),
        ("9.0+PTX", (8, 0), False),
        ("", (9, 0), False),
    ],
)
def test_gpus_that_a_build_covers(built, capability, expected):
    assert backend.covers(built, capability) is expected
