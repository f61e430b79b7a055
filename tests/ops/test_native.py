"""Native kernels against the torch references. The CUDA kernels, compiled for the host, run here too."""

import math
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import torch._dynamo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from perception.ops import backend, registration
from perception.ops import build as builder
from perception.ops.ball_query import ball_query
from perception.ops.box_iou_rotated import box_iou_rotated
from perception.ops.knn import knn
from perception.ops.ms_deform_attn import multi_scale_deformable_attention
from perception.ops.nms_rotated import nms_rotated
from perception.ops.roi_align_rotated import roi_align_rotated
from perception.ops.sample_rays import sample_rays
from perception.ops.three_nn import three_nn
from perception.ops.trilinear import VoxelCorners, trilinear_gather, trilinear_scatter
from tests.conftest import REPOSITORY
from tests.ops.case import KINDS, Case, Sizes
from tests.ops.definitions import some_rotated_boxes, strided
from tests.ops.native_cases import CASES, DIFFERENTIABLE, KERNELS, RAGGED, THREADED, WITH_HALF, gradients, outputs

pytestmark = pytest.mark.xdist_group("native")
TOLERANCES = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-10, atol=1e-11)}


@pytest.fixture(scope="module")
def emulated() -> None:
    """The CUDA kernels as operators of the CPU, in a namespace of their own."""
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    folder = Path(backend._DEFAULT_FOLDER) / "emulated"
    torch.ops.load_library(builder.build_emulated(folder, jobs=2))
    registration.define_in("perception_emulated")


@pytest.fixture(params=["cpu", "cuda"])
def kernels(request, monkeypatch) -> str:
    """Runs the native CPU kernels, or those for CUDA."""
    if request.param == "cuda":
        request.getfixturevalue("emulated")
        monkeypatch.setattr(torch.ops, "perception", torch.ops.perception_emulated)
        monkeypatch.setattr(backend, "_devices", frozenset({"cpu"}))
    elif "cpu" not in backend.devices():
        pytest.skip(f"no native CPU kernels: {backend.reason()}")
    monkeypatch.setattr(backend, "_mode", "native")
    return request.param


def test_every_kernel_has_a_case_a_benchmark_and_a_row_in_the_docs():
    assert {name.partition(",")[0] for name in CASES} == set(KERNELS)
    timed = {path.stem for path in (REPOSITORY / "benchmarks" / "ops_cases").glob("*.py")}
    operators = {kernel.operator for kernel in KERNELS.values()}
    assert operators == timed - {"__init__"}
    page = (REPOSITORY / "docs" / "operators.md").read_text()
    listed = re.findall(r"^\| (`[^|]+) \| (?:float|also)", page, re.MULTILINE)
    assert sorted(operators) == sorted(re.findall(r"`(\w+)`", " ".join(listed)))


def reference(function, *args):
    with backend.use("reference"):
        return function(*args)


def assert_equal(ours, expected, dtype):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        assert a.dtype == b.dtype
        # Boxes without an area have no defined overlap.
        torch.testing.assert_close(a, b, **TOLERANCES[dtype], equal_nan=True)


def make(name: str, kind, kernels: str, dtype=torch.float64) -> Case:
    if kernels == "cuda" and kind == "large" and name in THREADED:
        kind = "odd"
    return CASES[name](Sizes(kind), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_values(kernels, name, kind, dtype):
    case = make(name, kind, kernels, dtype)
    assert_equal(outputs(case), reference(outputs, case), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients(kernels, name, kind, dtype):
    case = make(name, kind, kernels, dtype)
    assert_equal(gradients(case), reference(gradients, case), dtype)


@pytest.mark.parametrize("name", CASES)
def test_memory_that_is_not_contiguous(kernels, name):
    case = make(name, "odd", kernels, torch.float32)
    scattered = case._replace(inputs=tuple(strided(x) for x in case.inputs))
    expected = outputs(case)
    assert any(not x.is_contiguous() for x in scattered.inputs)
    assert_equal(outputs(scattered), expected, torch.float32)
    if name in DIFFERENTIABLE:
        assert_equal(gradients(scattered), gradients(case), torch.float32)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(CASES)), seed=st.integers(0, 10**6), scatter=st.booleans())
def test_any_shape_and_stride(name, seed, scatter):
    if "cpu" not in backend.devices():
        pytest.skip(f"no native CPU kernels: {backend.reason()}")
    case = CASES[name](Sizes(seed), torch.float64)
    if scatter:
        case = case._replace(inputs=tuple(strided(x) for x in case.inputs))
    with backend.use("native"):
        ours = outputs(case), gradients(case) if case.differentiable else []
    expected = reference(outputs, case), reference(gradients, case) if case.differentiable else []
    for a, b in zip(ours, expected):
        assert_equal(a, b, torch.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_any_shape_of_the_cuda_kernels(emulated, monkeypatch, name, seed):
    monkeypatch.setattr(torch.ops, "perception", torch.ops.perception_emulated)
    monkeypatch.setattr(backend, "_devices", frozenset({"cpu"}))
    case = CASES[name](Sizes(seed), torch.float64)
    assert_equal(outputs(case), reference(outputs, case), torch.float64)
    if name in DIFFERENTIABLE:
        assert_equal(gradients(case), reference(gradients, case), torch.float64)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_are_exact(kernels, name):
    case = make(name, "single" if kernels == "cuda" else 3, kernels)
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs[: case.differentiable]]
    rest = case.inputs[case.differentiable :]
    assert torch.autograd.gradcheck(lambda *x: case.function(*x, *rest), leaves, fast_mode=True, atol=1e-4)


def test_second_derivatives_of_the_hash_grid(kernels):
    case = make("hash_grid", "single", kernels)
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs]
    assert torch.autograd.gradgradcheck(case.function, leaves, fast_mode=True, atol=1e-4)


def test_other_second_derivatives_are_refused(kernels):
    case = make("carafe", "single", kernels)
    leaf = case.inputs[0].clone().requires_grad_()
    weights = case.inputs[1].clone().requires_grad_()
    (grad,) = torch.autograd.grad(case.function(leaf, weights).square().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="carafe has no second derivative"):
        grad.sum().backward()


class Recorder(TorchDispatchMode):
    """Keeps what the operators of a namespace are called with."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace, self.calls = namespace, defaultdict(list)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == self.namespace:
            self.calls[func].append(args)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["empty", "odd"])
@pytest.mark.parametrize("name", CASES)
def test_registration(kernels, name, kind):
    case = make(name, "single" if kernels == "cuda" else kind, kernels)
    with Recorder("perception" if kernels == "cpu" else "perception_emulated") as recorder:
        outputs(case)
        if name in DIFFERENTIABLE:
            gradients(case)
    assert recorder.calls
    for operator, calls in recorder.calls.items():
        arguments = [
            x.detach().requires_grad_()
            if isinstance(x, torch.Tensor) and x.is_floating_point() and name in DIFFERENTIABLE
            else x
            for x in calls[0]
        ]
        checks = ["test_schema", "test_faketensor"]
        if not operator._schema.name.endswith("_backward"):  # which refuse, or are checked by gradgradcheck
            checks += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
        torch.library.opcheck(operator, tuple(arguments), test_utils=checks)


@pytest.mark.parametrize("name", CASES)
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_compiles_as_one_graph(kernels, name):
    if kernels == "cuda":
        pytest.skip("the same Python code as for the CPU kernels")
    if name in RAGGED:
        pytest.skip("how many tensors it returns depends on their content")
    case = make(name, "odd", kernels, torch.float32)
    torch._dynamo.reset()
    compiled = case._replace(function=torch.compile(case.function, fullgraph=True, backend="aot_eager"))
    assert_equal(outputs(compiled), outputs(case), torch.float32)
    if name in DIFFERENTIABLE:
        assert_equal(gradients(compiled), gradients(case), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", WITH_HALF)
def test_half_types(kernels, name, dtype):
    case = make(name, "odd", kernels, torch.float32)
    half = case._replace(inputs=tuple(x.to(dtype) for x in case.inputs))
    exact = case._replace(inputs=tuple(x.float() for x in half.inputs))
    for ours, expected in zip(outputs(half) + gradients(half), outputs(exact) + gradients(exact)):
        assert ours.dtype == dtype
        # Computed in float32: nothing but the result is rounded.
        torch.testing.assert_close(ours, expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


def test_equal_in_every_run():
    """The CPU kernels add in one order, whatever the number of threads."""
    if "cpu" not in backend.devices():
        pytest.skip(f"no native CPU kernels: {backend.reason()}")
    for name in DIFFERENTIABLE:
        case = CASES[name](Sizes("large"), torch.float32)
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with backend.use("native"):
                results.append(outputs(case) + gradients(case))
        for a, b in zip(*results):
            assert torch.equal(a, b), name


def test_mixed_types_and_inputs_that_want_a_gradient():
    points, centres = torch.rand(1, 20, 3), torch.rand(1, 4, 3, dtype=torch.float64)
    for single, double in ((points, centres.float()), (points.double(), centres)):
        assert not knn(3, single.requires_grad_(), double)[0].requires_grad
        assert not three_nn(double, single.requires_grad_())[0].requires_grad
    distances, indices = knn(3, points.detach(), centres)
    assert torch.equal(indices, knn(3, points.detach().double(), centres)[1])
    assert distances.shape == (1, 4, 3)
    assert ball_query(points.detach(), centres, 0.0, 1.0, 2).shape == (1, 4, 2)
    first, second = (some_rotated_boxes(6, seed=s)[0] for s in (1, 2))
    overlap = box_iou_rotated(first.requires_grad_(), second)  # differentiable, also where native kernels exist
    overlap.sum().backward()
    assert first.grad.abs().sum() > 0


def test_maps_without_pixels_and_regions_without_end(kernels):
    rois = torch.tensor([[0.0, 0, 0, 4, 4, 0], [0, 2, 2, math.inf, 3, 0.1], [0, 2, 2, 1e30, 3, 0.1], [0, math.nan] * 3])
    for shape in ((1, 4, 0, 5), (1, 4, 5, 0), (1, 4, 6, 7)):
        features = torch.randn(shape, requires_grad=True)
        pooled = roi_align_rotated(features, rois, (2, 2), 1.0, 0)
        assert not pooled[1:].any()
        assert pooled.shape == (4, 4, 2, 2)
        pooled.sum().backward()
        assert features.grad.shape == shape
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_maps_with_single_weights(kernels, dtype):
    """What automatic mixed precision hands to CARAFE: nothing is rounded but the result."""
    case = make("carafe", "odd", kernels, torch.float32)
    features, masks = case.inputs[0].to(dtype), case.inputs[1]
    leaves = [x.detach().requires_grad_() for x in (features, masks)]
    exact = [x.detach().float().requires_grad_() for x in (features, masks)]
    result, expected = case.function(*leaves), case.function(*exact)
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))
    pull = torch.randn_like(expected).to(dtype)
    grads = torch.autograd.grad(result, leaves, pull)
    for a, b in zip(grads, torch.autograd.grad(expected, exact, pull.float())):
        assert torch.equal(a, b.to(a.dtype))


def test_shapes_that_do_not_fit_are_refused(kernels):
    points, positions = torch.rand(2, 5, 3), torch.rand(3, 3)
    boxes, scores = torch.rand(4, 5), torch.rand(3)
    value, places, weights = torch.rand(2, 12, 1, 4), torch.rand(1, 3, 1, 1, 2, 2), torch.rand(1, 3, 1, 1, 2)
    rays, cells = torch.rand(3, 3), torch.ones(2, 2, 2)
    for match, call in (
        ("one batch size", lambda: knn(2, points, points[:1])),
        ("one batch size", lambda: ball_query(points, points[:1], 0.0, 1.0, 2)),
        ("scores and order must have the shape", lambda: nms_rotated(boxes, scores, 0.5)),
        ("a position for each", lambda: trilinear_scatter(torch.rand(5, 2), VoxelCorners(positions, (2, 2, 2)))),
        ("positions must have", lambda: trilinear_gather(torch.rand(8, 2), VoxelCorners(positions[:, :2], (2, 2, 2)))),
        ("sampling_locations must have", lambda: multi_scale_deformable_attention(value, [(3, 4)], places, weights)),
        ("count must have", lambda: sample_rays(rays, rays, torch.ones(2), rays[0], rays[1], 0.1)),
        (
            "needs mask_scale",
            lambda: sample_rays(rays, rays, torch.ones(3), rays[0], rays[1], 0.1, cells),
        ),
    ):
        with pytest.raises(RuntimeError, match=match):
            call()
