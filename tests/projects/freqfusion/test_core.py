"""FreqFusion and its sampler: recorded numbers, and the laws of spec section 10."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from projects.freqfusion.fusion import FreqFusion, normalize_kernels
from projects.freqfusion.sampler import LocalSimGuidedSampler, local_similarity

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "freqfusion"
FORWARD = {
    name: case
    for file in ("forward.pt", "forward_variants.pt")
    for name, case in torch.load(FOLDER / file, weights_only=True).items()
}
SAMPLERS = {
    name: case
    for file in ("sampler_sim.pt", "sampler_sim_concat.pt")
    for name, case in torch.load(FOLDER / file, weights_only=True)["sampler"].items()
}
OUTPUTS = ("mask_lr", "hr", "lr")


def close_to_recorded(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_recorded_similarity():
    case = SAMPLERS["compute_similarity"]
    x = case["inputs"]["x"].clone().requires_grad_()
    similarity = local_similarity(x, case["meta"]["k"], case["meta"]["dilation"])
    torch.testing.assert_close(similarity, case["outputs"]["sim"], atol=1e-5, rtol=0)
    (grad,) = torch.autograd.grad(similarity, x, case["inputs"]["grad_out"])
    close_to_recorded(grad, case["grads"]["x"])


@pytest.mark.parametrize("name", ["sampler_sim", "sampler_sim_concat"])
def test_recorded_sampler(name):
    case = SAMPLERS[name]
    options = {key: case["meta"][key] for key in ("in_channels", "groups", "kernel_size", "norm", "direction_feat")}
    sampler = LocalSimGuidedSampler(**options)
    assert torch.equal(sampler.init_pos, case["state_dict"]["init_pos"])
    sampler.load_state_dict(case["state_dict"])
    inputs = [case["inputs"][key].clone().requires_grad_() for key in ("hr_x", "lr_x", "feat2sample")]
    result = sampler(*inputs)
    torch.testing.assert_close(result, case["outputs"]["out"], atol=1e-4, rtol=0)
    torch.testing.assert_close(sampler.offsets(*inputs[:2]), case["outputs"]["offset"], atol=1e-4, rtol=0)
    result.backward(case["inputs"]["grad_out"])
    for leaf, key in zip(inputs, ("hr", "lr", "feat")):
        close_to_recorded(leaf.grad, case["grads"][key])
    for key, parameter in sampler.named_parameters():
        close_to_recorded(parameter.grad, case["grads"]["params"][key])


@pytest.mark.parametrize("name", FORWARD)
def test_recorded_fusion(name):
    case = FORWARD[name]
    source = FORWARD["default"] if name == "default_fallback_reflect" else case
    options = dict(case["meta"]["kwargs"], padding="reflect" if "reflect" in name else "zero")
    fusion = FreqFusion(**options)
    fusion.load_state_dict(source["state_dict"])
    hr, lr = (source["inputs"][key].clone().requires_grad_() for key in ("hr_feat", "lr_feat"))
    results = dict(zip(OUTPUTS, fusion(hr, lr)))
    for key, expected in case["outputs"].items():
        if key != "loss":
            torch.testing.assert_close(results[key], expected, atol=1e-5, rtol=0)
    if "loss_weights" not in source["inputs"]:
        return
    loss = sum((results[key] * w).mean() for key, w in zip(OUTPUTS, source["inputs"]["loss_weights"]))
    assert loss.item() == pytest.approx(case["outputs"]["loss"], abs=1e-6)
    loss.backward()
    close_to_recorded(hr.grad, case["grads"]["hr"])
    close_to_recorded(lr.grad, case["grads"]["lr"])
    for key, expected in case["grads"].get("params", {}).items():
        close_to_recorded(fusion.get_parameter(key).grad, expected)


def test_published_sizes():
    def count(*args, **options):
        return sum(p.numel() for p in FreqFusion(*args, feature_resample=True, **options).parameters())

    assert count(256, 256, 64) == 104_690
    assert count(256, 256, 64, feature_resample_group=8) == 156_610
    assert count(256, 256, 64, feature_resample_norm=False) == 104_434
    segnext = dict(direction_feat="sim", hamming_window=False)
    assert count(160, 256, 104, **segnext) == 116_146
    assert count(64, 416, 120, **segnext) == 141_234


def test_kernels_sum_to_one_and_leave_constant_maps_alone():
    logits = torch.randn(2, 2 * 25, 6, 7)
    kernels = normalize_kernels(logits, 5, FreqFusion(4, 4, 8).hamming_lowpass)
    torch.testing.assert_close(kernels.view(2, 2, 25, 6, 7).sum(2), torch.ones(2, 2, 6, 7))
    fusion = FreqFusion(8, 8, 16)
    kernels, hr, lr = fusion(torch.ones(1, 8, 24, 32), torch.ones(1, 8, 12, 16))
    torch.testing.assert_close(kernels.sum(1), torch.ones(1, 24, 32))
    torch.testing.assert_close(lr[..., 4:-4, 4:-4], torch.ones(1, 8, 16, 24), atol=1e-6, rtol=0)
    torch.testing.assert_close(hr[..., 1:-1, 1:-1], torch.ones(1, 8, 22, 30), atol=1e-6, rtol=0)
    # Zeros outside of the maps lose energy at the border (spec 9.7).
    assert lr[0, 0, 0, 0].item() == pytest.approx(0.523, abs=0.01)
    assert lr[0, 0, 0, 16].item() == pytest.approx(0.724, abs=0.01)
    assert hr[0, 0, 0, 0].item() == pytest.approx(1.132, abs=0.01)
    assert hr[0, 0, 0, 16].item() == pytest.approx(1.070, abs=0.01)


@pytest.mark.parametrize(("hamming", "gain", "residual"), [(True, 1.48, 0.004), (False, 1.89, 0.045)])
def test_initial_gains_of_a_checkerboard(hamming, gain, residual):
    board = (torch.arange(24)[:, None] + torch.arange(24)) % 2 * 2.0 - 1
    fusion = FreqFusion(4, 4, 8, hamming_window=hamming)
    _, hr, _ = fusion(board.expand(1, 4, 24, 24), torch.zeros(1, 4, 12, 12))
    assert hr[..., 4:-4, 4:-4].abs().mean().item() == pytest.approx(gain, abs=0.02)
    _, _, lr = fusion(torch.zeros(1, 4, 48, 48), board.expand(1, 4, 24, 24))
    assert lr[..., 8:-8, 8:-8].abs().mean().item() == pytest.approx(residual, abs=0.01)


def test_the_sampler_starts_as_identity_and_moves_in_pixels_of_the_deep_map():
    sampler = LocalSimGuidedSampler(16, groups=2)
    feature = torch.randn(2, 6, 8, 12)
    still = sampler.init_pos.expand(2, -1, 4, 6)
    torch.testing.assert_close(sampler.sample(feature, still), feature, atol=2e-6, rtol=0)
    moved = still.clone()
    moved[:, :8] += 1  # x comes first
    torch.testing.assert_close(sampler.sample(feature, moved)[..., :-2], feature[..., 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("direction_feat", ["sim", "sim_concat"])
def test_the_sampler_without_scales(direction_feat):
    sampler = LocalSimGuidedSampler(16, groups=2, use_direct_scale=False, direction_feat=direction_feat)
    assert not any("direct_scale" in name for name in sampler.state_dict())
    hr, lr = torch.randn(2, 16, 8, 12), torch.randn(2, 16, 4, 6)
    scaled = LocalSimGuidedSampler(16, groups=2, direction_feat=direction_feat)
    scaled.load_state_dict(sampler.state_dict(), strict=False)
    for conv in (scaled.direct_scale, scaled.hr_direct_scale):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    with torch.no_grad():
        half, quarter = (module.offsets(hr, lr) - module.init_pos for module in (scaled, sampler))
    torch.testing.assert_close(half, 2 * quarter)


@pytest.mark.slow
def test_gradient_of_the_whole_module():
    fusion = FreqFusion(4, 4, 8, feature_resample=True, feature_resample_group=4).double()
    for module in (fusion.content_encoder, fusion.content_encoder2):
        nn.init.normal_(module.weight, std=0.3)
    hr = torch.randn(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    lr = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: fusion(a, b)[1:], (hr, lr), atol=1e-5)


def test_what_does_not_fit_says_so():
    fusion = FreqFusion(4, 4, 8)
    with pytest.raises(ValueError, match=r"exactly twice as large as the deep one, got \(27, 28\) and \(14, 14\)"):
        fusion(torch.zeros(1, 4, 27, 28), torch.zeros(1, 4, 14, 14))
    with pytest.raises(ValueError, match="use_high_pass=False needs"):
        FreqFusion(4, 4, 8, use_high_pass=False)
    with pytest.raises(ValueError, match="52 channels cannot be normalised"):
        FreqFusion(4, 4, 52, feature_resample=True)
    with pytest.raises(ValueError, match="padding must be"):
        FreqFusion(4, 4, 8, padding="reflect", up_group=2)
    with pytest.raises(ValueError, match="direction_feat must be"):
        FreqFusion(4, 4, 16, feature_resample=True, direction_feat="both")
    with pytest.raises(ValueError, match="odd sides"):
        FreqFusion(4, 4, 16, lowpass_kernel=4)


@pytest.mark.parametrize("size", [(27, 28), (28, 27), (27, 27), (28, 28)])
def test_odd_sizes_can_be_padded(size):
    fusion = FreqFusion(4, 6, 8, sizes="pad")
    kernels, hr, lr = fusion(torch.randn(1, 4, *size), torch.randn(1, 6, 14, 14))
    assert kernels.shape == (1, 25, *size)
    assert hr.shape == (1, 4, *size)
    assert lr.shape == (1, 6, *size)


@pytest.mark.parametrize(
    "options",
    [
        dict(semi_conv=False),
        dict(semi_conv=False, use_high_pass=False, upsample_mode="bilinear"),
        dict(comp_feat_upsample=False, use_high_pass=False),
        dict(up_group=2, hr_residual=False),
        dict(feature_resample=True, feature_resample_group=2, direction_feat="sim"),
    ],
)
def test_other_settings(options):
    fusion = FreqFusion(4, 6, 16, **options)
    size = (13, 11) if not options.get("semi_conv", True) else (12, 10)
    hr, lr = torch.randn(2, 4, *size, requires_grad=True), torch.randn(2, 6, 6, 5, requires_grad=True)
    results = fusion(hr, lr)
    again = fusion(hr, lr, use_checkpoint=True)
    for a, b in zip(results, again):
        torch.testing.assert_close(a, b)
    if not options.get("use_high_pass", True):
        assert torch.equal(results[1], hr)
    sum(x.square().mean() for x in again).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fusion.parameters())


def test_checkpointing_keeps_less_for_inputs_without_gradients_too():
    fusion = FreqFusion(4, 6, 16, feature_resample=True, feature_resample_group=2)
    again = FreqFusion(4, 6, 16, feature_resample=True, feature_resample_group=2, checkpointing=True)
    again.load_state_dict(fusion.state_dict())
    hr, lr = torch.randn(2, 4, 12, 10), torch.randn(2, 6, 6, 5)
    kept = {}
    for name, module, options in (
        ("all", fusion, {}),
        ("setting", again, {}),
        ("call", fusion, {"use_checkpoint": True}),
        ("all after all", again, {"use_checkpoint": False}),
    ):
        module.zero_grad()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            results = module(hr, lr, **options)
        sum(x.square().mean() for x in results).backward()
        kept[name] = sum(saved)
        assert all(p.grad is not None for p in module.parameters())
        for ours, theirs in zip(module.parameters(), fusion.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad)
    assert kept["setting"] == kept["call"] < kept["all"] / 10
    assert kept["all after all"] == kept["all"]
    with torch.no_grad():
        assert torch.equal(again(hr, lr)[2], fusion(hr, lr)[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    fusion = FreqFusion(8, 8, 16, feature_resample=True)
    hr, lr = torch.randn(1, 8, 12, 16), torch.randn(1, 8, 6, 8)
    expected = fusion(hr, lr)
    with torch.autocast("cpu", dtype=dtype):
        results = fusion(hr.to(dtype), lr.to(dtype))
    assert results[1].dtype == results[2].dtype == dtype
    for a, b in zip(results, expected):
        assert a.isfinite().all()
        torch.testing.assert_close(a.float(), b, atol=0.1, rtol=0.1)


class Toy(nn.Module):
    """Spec 10, B9: two branches and a fusion."""

    def __init__(self, fusion):
        super().__init__()
        self.hr = nn.Conv2d(3, 16, 3, padding=1)
        self.lr = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)
        )
        self.fusion = fusion
        self.out = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        hr, lr = self.hr(x), self.lr(x)
        if self.fusion is None:
            return self.out(F.relu(hr + F.interpolate(lr, scale_factor=2)))
        _, hr, lr = self.fusion(hr, lr)
        return self.out(F.relu(hr + lr))


def shapes(count, generator):
    """Noisy images (N, 3, 32, 32) with discs, squares and diamonds, and their classes (N, 32, 32)."""
    v, u = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images, labels = torch.zeros(count, 3, 32, 32), torch.zeros(count, 32, 32, dtype=torch.long)
    for image, label in zip(images, labels):
        for kind in (1, 2, 3):
            cx, cy = (torch.rand(2, generator=generator) * 20 + 6).tolist()
            radius = float(torch.rand(1, generator=generator) * 4 + 4)
            dx, dy = (u - cx).abs(), (v - cy).abs()
            inside = {1: (dx**2 + dy**2).sqrt(), 2: torch.maximum(dx, dy), 3: dx + dy}[kind] < radius
            label[inside] = kind
            image[:, inside] = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.8, 0.4], [0.3, 0.3, 0.9]])[kind - 1][:, None]
        image += 0.35 * torch.randn(image.shape, generator=generator)
    return images, labels


def mean_iou(model, images, labels):
    with torch.no_grad():
        predicted = model(images).argmax(1)
    overlaps = [((predicted == k) & (labels == k)).sum() / ((predicted == k) | (labels == k)).sum() for k in range(4)]
    return torch.stack(overlaps).mean().item()


@pytest.mark.slow
def test_it_helps_a_toy_segmenter():
    """Spec 10, B9, on shapes of our own: FreqFusion with resampling beats nearest upsampling and adding."""
    scores = {"add": [], "freqfusion": []}
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        train, unseen = shapes(32, generator), shapes(32, generator)
        for name, values in scores.items():
            torch.manual_seed(seed)
            fusion = None if name == "add" else FreqFusion(16, 16, 16, feature_resample=True)
            model = Toy(fusion)
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for step in range(120):
                batch = slice(step * 4 % 32, step * 4 % 32 + 4)
                loss = F.cross_entropy(model(train[0][batch]), train[1][batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            values.append(mean_iou(model, *unseen))
    means = {name: sum(values) / 2 for name, values in scores.items()}
    assert means["freqfusion"] >= means["add"] + 0.01, scores
