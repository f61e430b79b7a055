"""What an earlier version wrote is still read: settings that have moved, a checkpoint, a file (`tests/data`)."""

import shutil
from pathlib import Path

import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup

from perception.datasets.synthetic import radiance
from perception.radiance.dvgo_settings import CoarseSettings, FineSettings
from perception.studio.checkpoints import read_run
from perception.studio.samplers import RandomSamplerConfig
from projects.vqrf.compression import field_of
from projects.vqrf.file_format import container
from projects.vqrf.model import VqrfModelConfig
from projects.vqrf.packing import load_model
from tests.conftest import REPOSITORY
from tests.projects.vqrf.runs import printed, train

pytestmark = pytest.mark.xdist_group("nerfstudio")
EARLIER = REPOSITORY / "tests/data/vqrf_earlier_run"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A copy of the run, beside the scene that it names."""
    monkeypatch.chdir(tmp_path)
    radiance.write(Path("scene"), radiance.Params(num_train=8, num_val=2, num_test=2, size=24, num_objects=2))
    shutil.copytree(EARLIER, "outputs/run/vqrf-tiny/stopped")
    return Path("outputs/run/vqrf-tiny/stopped")


def test_settings_whose_classes_have_moved():
    config = read_run(EARLIER / "config.yml")
    model = config.pipeline.model
    assert isinstance(model, VqrfModelConfig)
    assert isinstance(model.coarse, CoarseSettings)
    assert isinstance(model.fine, FineSettings)
    assert (model.coarse.num_voxels, model.fine.rgbnet_width, model.compression.codebook_size) == (512, 8, 16)
    assert str(model.schedule()) == "coarse 60, fine 20, compression 23"
    # Options that it does not know have their defaults.
    assert config.pipeline.datamanager.sampler == RandomSamplerConfig()
    assert config.pipeline.datamanager.images_in_memory is None


def test_its_checkpoint_is_evaluated(place):
    _, pipeline, path, step = eval_setup(place / "config.yml", test_mode="test")
    assert (path.name, step) == ("step-000000069.ckpt", 69)
    content = torch.load(path, weights_only=True)["pipeline"]
    state = {f"_model.{name}": value for name, value in pipeline.model.state_dict().items()}
    assert state.keys() == content.keys()
    assert all(torch.equal(value, content[name]) for name, value in state.items())
    assert load_model(place / "config.yml").stages.present.name == "fine"


def test_it_goes_on(place, capsys):
    """In the middle of its second stage, with its moments and rates."""
    config = read_run(place / "config.yml")
    config.load_dir, config.timestamp, config.max_num_iterations = place / "nerfstudio_models", "later", 10**6
    config.output_dir = place.absolute().parents[2]  # nerfstudio's writers outlive this test and its working folder
    trainer = train(config)
    said = printed(capsys)
    assert "Going on after step 69" in said
    assert "other settings" not in said
    assert (trainer.base_dir / "field.vqrf").is_file()
    (checkpoint,) = (place / "nerfstudio_models").iterdir()
    moments = torch.load(checkpoint, weights_only=True)["optimizers"]["rgbnet"]["state"][0]["step"]
    first = next(iter(trainer.optimizers.optimizers["rgbnet"].state.values()))
    assert float(first["step"]) == float(moments) + 103 - 70


def test_its_file_renders():
    compressed = container.read(EARLIER / "field.vqrf")
    field = field_of(compressed)
    assert field.world_size == tuple(compressed.world_size)
    rays_o = torch.tensor([[0.0, 0.0, 4.0]]).repeat(64, 1)
    rays_d = torch.nn.functional.normalize(torch.randn(64, 3) * 0.2 - rays_o, dim=-1)
    shown = field(rays_o, rays_d, rays_d, near=0.5)
    assert float((shown.rgb_marched - 1).abs().max()) > 0.02  # something before the white background
    # Packing what was read gives the same bytes: nothing in the format has changed.
    assert container.pack(compressed) == (EARLIER / "field.vqrf").read_bytes()
