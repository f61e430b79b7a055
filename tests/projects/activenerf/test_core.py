"""The method's equations: the authors' numbers, invariants, counts by hand."""

import math
from pathlib import Path

import pytest
import torch

from perception.engine.errors import UserError
from projects.activenerf.acquisition import (
    best_views,
    farthest_views,
    information_gain,
    posterior_variance,
    random_views,
)
from projects.activenerf.converter import read_fields, read_parts
from projects.activenerf.field import ActiveNeRFField, encode
from projects.activenerf.losses import activenerf_losses, uncertainty_losses
from projects.activenerf.rendering import Rendering, Sampling, even_samples, render_rays, sample_pdf, volume_render

REFERENCE = Path(__file__).parents[2] / "data/reference/activenerf"
FIELD = torch.load(REFERENCE / "field.pt", weights_only=True)
RENDER = torch.load(REFERENCE / "raw2outputs_loss.pt", weights_only=True)
RENDERING_NAMES = ("rgb", "acc", "weights", "depth", "uncert", "sigma_mean")


def recorded_rendering(background: float, raw=None) -> Rendering:
    inputs = RENDER["inputs"]
    raw = inputs["raw"] if raw is None else raw
    return volume_render(raw, inputs["z_vals"], inputs["rays_d"], background=background)


def of_rays(rendering: Rendering, kept) -> Rendering:
    return Rendering(*(part[kept] for part in rendering))


def random_rendering(rays: int = 6, samples: int = 9, **options) -> Rendering:
    random = torch.Generator().manual_seed(0)
    raw = torch.randn(rays, samples, 5, generator=random)
    raw[..., 4] = raw[..., 4].abs() + 0.01
    z_vals = torch.rand(rays, samples, generator=random).sort(-1).values * 4 + 2
    return volume_render(raw, z_vals, torch.randn(rays, 3, generator=random), **options)


# The authors' numbers


def test_recorded_field_and_its_gradients():
    field = ActiveNeRFField(width=32)
    assert field.state_dict().keys() == FIELD["state_dict"].keys()
    field.load_state_dict(FIELD["state_dict"])
    points, viewdirs = FIELD["inputs"]["pts"], FIELD["inputs"]["viewdirs"]
    for made, name in ((encode(points, 10), "embed_pts"), (encode(viewdirs, 4), "embed_dirs")):
        torch.testing.assert_close(made, FIELD["outputs"][name], atol=1e-6, rtol=0)
    raw = field(points, viewdirs)
    torch.testing.assert_close(raw, FIELD["outputs"]["net_out"], atol=1e-5, rtol=1e-5)
    (raw * torch.linspace(0.5, 1.5, 5)).sum().backward()
    for name, parameter in field.named_parameters():
        torch.testing.assert_close(parameter.grad, FIELD["grads"][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("background", "name"), [(0.0, "black"), (1.0, "white")])
def test_recorded_rendering(background, name):
    made, expected = recorded_rendering(background), RENDER["outputs"]["render"][name]
    for part in RENDERING_NAMES:
        torch.testing.assert_close(getattr(made, part), expected[part], atol=1e-5, rtol=1e-5)
    seen = made.acc > 0
    torch.testing.assert_close(made.disp[seen], expected["disp"][seen], atol=1e-5, rtol=1e-5)
    assert made.disp[3] == 0  # not a number in the released code


def test_recorded_losses_and_their_gradient():
    outputs, target, kept = RENDER["outputs"], RENDER["inputs"]["target"], RENDER["outputs"]["kept_rays"]
    rendering = recorded_rendering(1.0)
    every = uncertainty_losses(rendering, target, w_reg=0.01, fallback="none")
    for name, part in outputs["loss_all_terms"].items():
        torch.testing.assert_close(every["offset" if name == "const" else name], part, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(every.values()), outputs["loss_all"], rtol=1e-5, atol=0)
    raw = RENDER["inputs"]["raw"].clone().requires_grad_()
    some = uncertainty_losses(of_rays(recorded_rendering(1.0, raw), kept), target[kept], w_reg=0.01)
    torch.testing.assert_close(sum(some.values()), outputs["loss_kept"], rtol=1e-5, atol=1e-6)
    sum(some.values()).backward()
    torch.testing.assert_close(raw.grad, RENDER["grads"]["raw"], rtol=1e-4, atol=1e-6)
    # Ray 3 meets nothing: the batch falls back.
    (squared,) = uncertainty_losses(rendering, target, w_reg=0.01).values()
    torch.testing.assert_close(squared, outputs["mse_all"], rtol=1e-5, atol=1e-7)


def test_sizes_of_the_published_network():
    state = ActiveNeRFField().state_dict()
    shapes = {name.removesuffix(".weight"): tuple(value.shape) for name, value in state.items() if "weight" in name}
    assert shapes["pts_linears.0"] == (256, 63)
    assert shapes["pts_linears.5"] == (256, 319)
    assert shapes["views_linears.0"] == (128, 283)
    assert shapes["uncertainty_linear"] == (1, 256)
    assert len(shapes) == 13


def test_a_network_without_directions_has_one_last_layer():
    field = ActiveNeRFField(width=16, use_viewdirs=False)
    assert field.output_linear.out_features == 5
    points = torch.randn(4, 3)
    assert torch.equal(field(points, torch.randn(4, 3)), field(points, torch.randn(4, 3)))
    # Their layer of directions, which nothing uses then, sees the trunk alone.
    assert field.views_linears[0].weight.shape == (8, 16)
    released = {"network_fn_state_dict": field.state_dict(), "network_fine_state_dict": field.state_dict()}
    assert not read_parts(released).fine.use_viewdirs


def test_the_smallest_variance_is_read_beside_the_authors_file(tmp_path, run_tool):
    """It is a setting of their code and no weight: their checkpoint does not hold it, `args.txt` does."""
    field = ActiveNeRFField(depth=2, width=8, skips=(), multires=1, multires_views=1, beta_min=0.25)
    released = {"network_fn_state_dict": field.state_dict(), "network_fine_state_dict": field.state_dict()}
    torch.save(released, tmp_path / "000001.tar")
    assert read_fields(tmp_path / "000001.tar")[1].beta_min == 0.01
    (tmp_path / "args.txt").write_text("basedir = ./logs/\nbeta_min = 0.25\nchunk = 32768\n[ 0  1]\n[2 3]")
    assert read_fields(tmp_path / "000001.tar")[1].settings() == field.settings()
    assert run_tool("convert_checkpoint", "activenerf", tmp_path / "000001.tar", tmp_path / "ours.pt").code == 0
    (tmp_path / "args.txt").unlink()
    back = run_tool("convert_checkpoint", "activenerf", tmp_path / "ours.pt", tmp_path / "back.tar", "--to", "authors")
    assert back.code == 0
    points, directions = torch.randn(3, 3), torch.randn(3, 3)
    for name in ("ours.pt", "back.tar"):
        assert torch.equal(read_fields(tmp_path / name)[1](points, directions), field(points, directions))
    with pytest.raises(UserError, match="beta_min, the smallest variance, is stated as 'None'"):
        read_parts({**released, "beta_min": "None"})


# Rendering


def test_variance_is_bounded_and_ignores_the_background():
    black, white = random_rendering(background=0.0), random_rendering(background=torch.ones(3))
    assert bool((black.uncert >= 0).all())
    bound = black.beta2.amax(-1) * black.weights.square().sum(-1)
    assert bool((black.uncert <= bound + 1e-7).all())
    assert torch.equal(black.uncert, white.uncert)
    torch.testing.assert_close(white.rgb - black.rgb, (1 - black.acc)[:, None].expand(-1, 3))


def test_variance_of_a_pixel_is_that_of_its_weighted_samples():
    """Drawing the samples' colours gives the rendered mean and variance."""
    rendering = random_rendering(rays=3, samples=5)
    random = torch.Generator().manual_seed(1)
    drawn = torch.randn(200_000, 3, 5, generator=random) * rendering.beta2.sqrt()
    spread = (drawn * rendering.weights).sum(-1).var(0)
    torch.testing.assert_close(spread, rendering.uncert, rtol=0.02, atol=1e-6)


def test_any_density_in_the_last_interval_is_opaque():
    raw = torch.zeros(1, 3, 5)
    raw[0, 2, 3] = 1e-3
    made = volume_render(raw, torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert float(made.acc) == pytest.approx(1, abs=1e-6)
    assert float(made.depth) == pytest.approx(3, abs=1e-5)


def test_samples_follow_the_weights():
    bins = torch.linspace(0, 1, 6)[None]
    weights = torch.tensor([[0.0, 0, 1, 0, 0]])
    drawn = sample_pdf(bins, weights, 50)
    inside = (drawn > 0.4 - 1e-6) & (drawn < 0.6 + 1e-6)
    assert float(inside.float().mean()) > 0.9
    torch.testing.assert_close(sample_pdf(bins, torch.ones(1, 5), 5), torch.linspace(0, 1, 5)[None], atol=1e-5, rtol=0)


def test_jitter_stays_between_the_middles_and_is_drawn_by_the_generator():
    near, far = torch.full((50,), 2.0), torch.full((50,), 6.0)
    fixed = even_samples(near, far, 5)
    torch.testing.assert_close(fixed[0], torch.linspace(2, 6, 5))
    moved = [even_samples(near, far, 5, random=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*moved)
    numbers = torch.rand(50, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(even_samples(near, far, 5, random=numbers), moved[0])
    places = [sample_pdf(moved[0], torch.ones(50, 4), 5, random=drawn) for drawn in (numbers, torch.Generator())]
    assert torch.equal(places[0], sample_pdf(moved[0], torch.ones(50, 4), 5, random=torch.Generator().manual_seed(3)))
    assert not torch.equal(*places)
    assert bool(((moved[0] - fixed).abs() <= 0.5 + 1e-6).all())
    disparity = even_samples(near, far, 3, lindisp=True)
    assert float(disparity[0, 1]) == pytest.approx(3.0)


def test_fine_samples_include_the_coarse_ones():
    counts = []

    def field(points, viewdirs):
        counts.append(points.shape[1])
        raw = torch.zeros(*points.shape[:-1], 5)
        raw[..., 3] = (points.norm(dim=-1) < 0.5).float() * 50
        raw[..., 4] = 0.2
        return raw

    origins, directions = torch.tensor([[0.0, 0, 4]]), torch.tensor([[0.0, 0, -1]])
    ends = torch.tensor([2.0]), torch.tensor([6.0])
    made = render_rays(field, field, origins, directions, directions, *ends, Sampling(16, 32))
    assert counts == [16, 48]
    assert float(made.fine.acc) == pytest.approx(1, abs=1e-4)
    assert abs(float(made.fine.depth) - 3.5) < 0.1
    assert 0 < float(made.fine.uncert) <= 0.2


# Losses


def test_the_likelihood_is_best_where_the_variance_is_the_error():
    error = 0.04
    target = torch.zeros(1, 3)
    for variance, sign in ((0.5 * error, -1), (2 * error, 1)):
        uncert = torch.tensor([variance], requires_grad=True)
        rendering = random_rendering(rays=1)._replace(rgb=torch.full((1, 3), math.sqrt(error)), uncert=uncert)
        sum(uncertainty_losses(rendering, target, w_reg=0.0).values()).backward()
        assert math.copysign(1, float(uncert.grad)) == sign
    uncert = torch.tensor([error], requires_grad=True)
    rendering = random_rendering(rays=1)._replace(rgb=torch.full((1, 3), math.sqrt(error)), uncert=uncert)
    sum(uncertainty_losses(rendering, target, w_reg=0.0).values()).backward()
    assert abs(float(uncert.grad)) < 1e-4


def test_rays_alone_fall_back():
    rendering, target, kept = recorded_rendering(1.0), RENDER["inputs"]["target"], RENDER["outputs"]["kept_rays"]
    losses = uncertainty_losses(rendering, target, w_reg=0.01, fallback="ray")
    own = sum(uncertainty_losses(of_rays(rendering, kept), target[kept], w_reg=0.01).values())
    empty = (rendering.rgb[3] - target[3]).square().mean()
    torch.testing.assert_close(sum(losses.values()), (15 * own + empty) / 16)
    with pytest.raises(ValueError, match="uncert_fallback must be one of batch, ray, none"):
        uncertainty_losses(rendering, target, w_reg=0.0, fallback="all")


def test_the_coarse_network_learns_no_variance():
    torch.manual_seed(0)
    coarse, fine = (ActiveNeRFField(depth=3, width=16, skips=(1,), multires=2, multires_views=1) for _ in range(2))
    for field in (coarse, fine):
        field.alpha_linear.bias.data.fill_(1.0)
    rays_d = torch.nn.functional.normalize(torch.randn(8, 3), dim=-1)
    ends = torch.full((8,), 1.0), torch.full((8,), 3.0)
    made = render_rays(coarse, fine, torch.zeros(8, 3), rays_d, rays_d, *ends, Sampling(8, 8))
    sum(activenerf_losses(made.coarse, made.fine, torch.rand(8, 3)).values()).backward()
    assert coarse.uncertainty_linear.weight.grad.abs().max() == 0
    assert fine.uncertainty_linear.weight.grad.abs().max() > 0
    assert coarse.rgb_linear.weight.grad.abs().max() > 0


# Acquisition


def test_gain_of_simple_rays():
    beta2 = torch.tensor([[0.37], [0.37]])
    gain = information_gain(torch.tensor([[1.0], [0.0]]), beta2)
    assert gain.dtype == torch.float64
    assert float(gain[0]) == pytest.approx(0.37 / 2, abs=1e-6)
    assert float(gain[1]) == 0


def test_gain_is_bounded_and_scales():
    rendering = random_rendering()
    prior, posterior = posterior_variance(rendering.weights, rendering.beta2)
    assert bool(((prior - posterior >= 0) & (prior - posterior < prior)).all())
    gain = information_gain(rendering.weights, rendering.beta2)
    torch.testing.assert_close(gain, (prior - posterior).sum(-1), rtol=1e-9, atol=0)
    released = prior - 1 / (
        1 / prior + rendering.weights.double().square() / (rendering.uncert[:, None].double() + 1e-9)
    )
    torch.testing.assert_close(gain, released.sum(-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(information_gain(rendering.weights, 3 * rendering.beta2), 3 * gain, rtol=1e-6, atol=0)


def test_update_is_that_of_bayes():
    """Of a linear-Gaussian model in which each sample is updated by the pixel on its own."""
    weights, beta2 = torch.tensor([[0.6, 0.3]]), torch.tensor([[0.2, 0.5]])
    observed = 0.36 * 0.2 + 0.09 * 0.5
    _, posterior = posterior_variance(weights, beta2)
    for place, (weight, variance) in enumerate(((0.6, 0.2), (0.3, 0.5))):
        kalman = variance - (variance * weight) ** 2 / (weight**2 * variance + observed)
        assert float(posterior[0, place]) == pytest.approx(kalman, rel=1e-6)


def test_choices():
    assert best_views([39.31, 39.37, 39.27, 39.32, 39.36], 2) == [1, 4]
    assert best_views([1.0, 3.0, 3.0], 5) == [1, 2, 0]
    drawn = random_views(10, 4, torch.Generator().manual_seed(2))
    assert len(set(drawn)) == 4
    assert drawn == random_views(10, 4, torch.Generator().manual_seed(2))
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert farthest_views(square[:1], square[1:], 2)[0] == 2
    assert sorted(farthest_views(square[:1], square[1:], 9)) == [0, 1, 2]
