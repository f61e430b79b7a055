"""Metrics of images, and what loading a checkpoint does to a model's parameters."""

import math

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.model_components.renderers import background_color_override_context
from torch.nn import Parameter

from perception.studio.errors import SceneError
from perception.studio.evaluation import mean
from perception.studio.model import RadianceModelConfig
from perception.studio.optimizers import MaskedAdamConfig, PerStepDecayConfig
from tests.studio.toy import ToyModel, ToyModelConfig

pytestmark = pytest.mark.xdist_group("nerfstudio")


def make_model(**settings) -> ToyModel:
    box = SceneBox(aabb=torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    return ToyModelConfig(**settings).setup(scene_box=box, num_train_data=1)


def outputs(rgb: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"rgb": rgb, "accumulation": torch.full_like(rgb[..., :1], 0.5), "depth": torch.rand(rgb[..., :1].shape)}


def test_metrics_take_colours_as_they_are():
    model = make_model(compute_lpips=False)
    target, rgb = torch.ones(12, 16, 3), torch.full((12, 16, 3), 1.5)
    metrics, pictures = model.get_image_metrics_and_images(outputs(rgb), {"image": target})
    assert metrics["psnr"] == pytest.approx(6.0206, abs=1e-4)  # clamped colours would be perfect
    assert isinstance(metrics["psnr"], float)
    assert {name: tuple(picture.shape) for name, picture in pictures.items()} == {
        "img": (12, 32, 3),
        "accumulation": (12, 16, 3),
        "depth": (12, 16, 3),
    }
    assert all(float(picture.min()) >= 0 and float(picture.max()) <= 1 for picture in pictures.values())
    batch = model.get_metrics_dict({"rgb": rgb[0]}, {"image": target[0]})
    assert float(batch["psnr"]) == pytest.approx(6.0206, abs=1e-4)


def test_similarity_needs_a_whole_window():
    model = make_model(compute_lpips=False)
    image = torch.rand(11, 11, 3)
    assert model.get_image_metrics_and_images(outputs(image), {"image": image})[0]["ssim"] == pytest.approx(1, abs=1e-5)
    assert "ssim" not in model.get_image_metrics_and_images(outputs(image[1:]), {"image": image[1:]})[0]


def test_masked_pixels_are_told_apart():
    """PSNR of all pixels, and of those that the mask leaves."""
    model = make_model(compute_lpips=False)
    target, rgb = torch.ones(12, 16, 3), torch.ones(12, 16, 3)
    rgb[:6] = 0.5
    rgb[6:] = 0.9
    mask = torch.ones(12, 16, 1, dtype=torch.bool)
    mask[:6] = False
    metrics, _ = model.get_image_metrics_and_images(outputs(rgb), {"image": target, "mask": mask})
    assert metrics["psnr_masked"] == pytest.approx(20, abs=1e-4)
    assert metrics["psnr"] == pytest.approx(-10 * math.log10(0.13), abs=1e-4)
    nothing = {"image": target, "mask": torch.zeros_like(mask)}
    assert math.isnan(model.get_image_metrics_and_images(outputs(rgb), nothing)[0]["psnr_masked"])
    assert mean([20.0, math.nan, 30.0]) == 25
    assert math.isnan(mean([math.nan]))
    assert "psnr_masked" not in model.get_image_metrics_and_images(outputs(rgb), {"image": target})[0]


def test_colours_without_their_background():
    model = make_model()
    opacity = torch.tensor([[0.5], [1.0], [0.0]])
    own = torch.tensor([[0.2, 0.4, 0.6]])
    shown = own * opacity + (1 - opacity)  # on white
    rgba = model.get_rgba_image({"rgb": shown, "accumulation": opacity})
    torch.testing.assert_close(rgba[:2], torch.cat([own.expand(2, 3), opacity[:2]], 1))
    assert rgba[2].tolist() == [0, 0, 0, 0]
    with background_color_override_context(torch.zeros(3)):
        black = model.get_rgba_image({"rgb": own * opacity, "accumulation": opacity})
    torch.testing.assert_close(black, rgba)


def test_missing_lpips_weights_are_said_once_and_never_fetched(monkeypatch, tmp_path, capsys):
    def fetched(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetched)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetched)
    model = make_model()
    for _ in range(3):
        metrics, _ = model.get_image_metrics_and_images(
            outputs(torch.rand(64, 64, 3)), {"image": torch.rand(64, 64, 3)}
        )
        assert metrics.keys() == {"psnr", "ssim"}
    assert capsys.readouterr().out.count("LPIPS is left out") == 1
    assert RadianceModelConfig().lpips_weights is None


def test_weights_of_the_metric_stay_out_of_checkpoints(tmp_path):
    from torchvision.models import alexnet

    torch.save(alexnet(weights=None).state_dict(), tmp_path / "alexnet.pth")
    model = make_model(lpips_weights=tmp_path / "alexnet.pth")
    image = torch.rand(64, 64, 3)
    metrics, _ = model.get_image_metrics_and_images(outputs(image), {"image": image})
    assert metrics["lpips"] == pytest.approx(0, abs=1e-5)
    assert model.state_dict().keys() == make_model().state_dict().keys()
    make_model().load_state_dict({**model.state_dict(), "_lpips.net.net.slice1.0.weight": torch.zeros(1)})
    (tmp_path / "alexnet.pth").write_bytes(b"cut")
    with pytest.raises(SceneError, match="does not hold torchvision's AlexNet"):
        make_model(lpips_weights=tmp_path / "alexnet.pth")


def test_loading_resizes_parameters_and_buffers_in_place():
    """An optimiser that was built before goes on with the loaded grid, at a rate and moments of the old one."""
    model, grown = make_model(), make_model()
    grown.grid = Parameter(torch.rand(1, 4, 7, 8, 9))
    grown.pool = torch.arange(5, dtype=torch.int32)
    grid, scale = model.grid, model.scale
    optimizer = MaskedAdamConfig(lr=0.1).setup([grid])
    model.load_state_dict(grown.state_dict())
    assert model.grid is grid
    assert model.scale is scale
    assert torch.equal(grid, grown.grid)
    assert torch.equal(model.pool, grown.pool)
    assert model.pool.dtype == torch.int32
    grid.grad = torch.ones_like(grid)
    optimizer.step()
    torch.testing.assert_close(model.grid, grown.grid - 0.1)
    assert not torch.equal(model.grid, grown.grid)  # memory is not shared with the checkpoint


def test_names_that_do_not_fit_are_said():
    model = make_model()
    state = model.state_dict()
    with pytest.raises(SceneError, match=r"1 names are missing \(scale\), 0 are left over"):
        make_model().load_state_dict({name: value for name, value in state.items() if name != "scale"}, strict=False)
    with pytest.raises(SceneError, match=r"0 names are missing \(\), 1 are left over \(more\)"):
        make_model().load_state_dict({**state, "more": torch.zeros(1)})


def test_optimiser_settings_reach_the_optimiser():
    made = MaskedAdamConfig(lr=0.3, betas=(0.5, 0.6), eps=1e-3, skip_zero_grad=True).setup([Parameter(torch.zeros(3))])
    group = made.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["skip_zero_grad"]) == (0.3, (0.5, 0.6), 1e-3, True)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        PerStepDecayConfig(decay_steps=0).setup().get_scheduler(optimizer=made, lr_init=0.3)
