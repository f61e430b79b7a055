"""The trackers as MMEngine models: steps from cloud to cloud, recipes, training that resumes exactly."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.testing import assert_close

from perception.datasets.tracklets.kitti import KittiTracklets
from perception.datasets.tracklets.samples import motion_inputs
from perception.datasets.tracklets.sequences import TrackletClouds
from perception.engine.config import load_config
from perception.geometry import boxes3d
from projects.adaformer.motion import MotionOutput
from projects.adaformer.siamese import SiameseOutput
from projects.adaformer.trackers import MotionTracker3D, SiamTracker3D
from tests.datasets.kitti_scenes import street

CONFIGS = Path(__file__).parents[3] / "configs"
DIMS = ((8, 8, 16), (16, 16, 32), (32, 32, 32))
BACKBONE = dict(type="AdaFormer", in_channels=3, dims=DIMS, num_samples=8, num_neighbours=4)


def siamcut(**options):
    torch.manual_seed(0)
    network = dict(channels=32, vote_channels=32, num_proposals=8)
    return SiamTracker3D(BACKBONE, network, template_points=32, search_points=64, **options).eval()


def mocut(**options):
    torch.manual_seed(0)
    segmenter = dict(
        type="AdaFormerSegmenter",
        backbone={**BACKBONE, "in_channels": 11},
        decoder=((32, 32), (32, 16), (16, 16)),
    )
    return MotionTracker3D(segmenter, points=64, **options).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return street(tmp_path_factory.mktemp("kitti"))


def clouds(root, scene=19):
    tracklets = KittiTracklets(str(root), (scene,))
    return [TrackletClouds(tracklets, tracklet) for tracklet in tracklets.tracklets]


class Oracle(torch.nn.Module):
    """Says what it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, *inputs, **named):
        self.asked.append(inputs or named)
        return self.answer


def siamese_answer(offset, count=1):
    boxes = torch.zeros(count, 4, 5)
    boxes[:, 2] = torch.tensor([*offset, 3.0])
    return SiameseOutput(boxes, *(torch.zeros(count, 4, 3) for _ in range(3)), torch.zeros(count, 4).long())


# ---------------------------------------------------------------------------------------------------------- steps


def test_offsets_are_in_the_frame_of_the_last_box():
    """A box that heads along y and goes one metre ahead."""
    tracker = siamcut()
    tracker.network = Oracle(siamese_answer((1.0, 0.2, 0.1, 0.3)))
    box = torch.tensor([5.0, 6, 0, 4, 2, 1.5, math.pi / 2])
    cloud = torch.randn(500, 3) + torch.tensor([5.0, 6, 0])
    target = tracker.begin(cloud, box)
    (step,) = tracker.step([target], [cloud])
    assert_close(step.box, torch.tensor([4.8, 7.0, 0.1, 4, 2, 1.5, math.pi / 2 + 0.3]).double(), atol=1e-6, rtol=0)
    assert step.score == pytest.approx(1 / (1 + math.exp(-3)))
    assert step.status == "ok"
    assert torch.equal(target.box, step.box)


def test_p2b_predicts_degrees_in_the_plane():
    tracker = siamcut(degrees=True, use_z=False, size_channels=False)
    tracker.network = Oracle(siamese_answer((0.0, 0.0, 0.5, 90.0)))
    box = torch.tensor([0.0, 0, 0, 4, 2, 1.5, 0])
    cloud = torch.randn(500, 3)
    (step,) = tracker.step([tracker.begin(cloud, box)], [cloud])
    assert_close(step.box, torch.tensor([0, 0, 0, 4, 2, 1.5, math.pi / 2]).double())
    assert tracker.network.asked[0][0].shape[-1] == 3  # no channels beside the position


def test_the_mean_of_proposals_is_weighted_by_their_scores():
    """One of four proposals is e^3 times as likely as each of the others, which stay where the box was."""
    tracker = siamcut(proposals="mean")
    tracker.network = Oracle(siamese_answer((1.0, 0.2, 0.1, 0.3)))
    box = torch.tensor([5.0, 6, 0, 4, 2, 1.5, 0])
    cloud = torch.randn(500, 3) + torch.tensor([5.0, 6, 0])
    (step,) = tracker.step([tracker.begin(cloud, box)], [cloud])
    share = math.exp(3) / (math.exp(3) + 3)
    expected = torch.tensor([5 + share, 6 + 0.2 * share, 0.1 * share, 4, 2, 1.5, 0.3 * share]).double()
    assert_close(step.box, expected, atol=1e-6, rtol=0)
    assert step.score == pytest.approx(1 / (1 + math.exp(-3)))
    with pytest.raises(ValueError, match="not 'all'"):
        siamcut(proposals="all")


def test_the_template_is_the_first_and_the_last_target():
    tracker = siamcut()
    tracker.network = Oracle(siamese_answer((0.0, 0, 0, 0)))
    box = torch.tensor([0.0, 0, 0, 2, 2, 2, 0])
    first = torch.full((40, 3), 0.25)
    target = tracker.begin(first, box)
    tracker.step([target], [torch.full((40, 3), -0.5)])
    tracker.step([target], [torch.full((40, 3), 0.75)])
    templates = [asked[0][0, :, :3] for asked in tracker.network.asked]
    assert set(templates[0].unique().tolist()) == {0.25}
    assert set(templates[1].unique().tolist()) == {0.25, -0.5}
    assert set(tracker.network.asked[1][1][0, :, 0].tolist()) == {0.75}


def test_motion_trackers_are_sure_of_the_first_box_only():
    tracker = mocut()
    still = MotionOutput(*(torch.zeros(1, 4) for _ in range(4)), *(torch.zeros(1) for _ in range(3)))
    tracker.network = Oracle(still)
    box = torch.tensor([0.0, 0, 0, 2, 2, 2, 0])
    cloud = torch.randn(300, 3)
    target = tracker.begin(cloud, box)
    tracker.step([target], [cloud])
    tracker.step([target], [cloud])
    masks = [set(asked["points"][0, :64, 4].tolist()) for asked in tracker.network.asked]
    assert masks[0] == {0.0, 1.0}
    assert sorted(masks[1]) == pytest.approx([0.2, 0.8])


def test_a_target_without_points_coasts_or_is_lost():
    box = torch.tensor([0.0, 0, 0, 2, 2, 2, 0])
    cloud, nothing = torch.randn(500, 3), torch.zeros(0, 3)
    for coast in (True, False):
        tracker = siamcut(coast=coast)
        tracker.network = Oracle(siamese_answer((0.5, 0.0, 0.0, 0.0)))
        target = tracker.begin(cloud, box)
        places = [tracker.step([target], [points])[0] for points in (cloud, nothing, nothing)]
        assert [step.points_in_search > 0 for step in places] == [True, False, False]
        assert [step.box[0].item() for step in places] == [0.5, 1.0, 1.5]
        assert [step.status for step in places] == ["ok", *(["coasting"] * 2 if coast else ["lost"] * 2)]
        assert math.isnan(places[2].score)
    tracker = siamcut(coast=True)
    (step,) = tracker.step([tracker.begin(cloud, box)], [nothing])
    assert (step.status, step.box[0].item()) == ("lost", 0.0)


@pytest.mark.parametrize("make", [siamcut, mocut])
def test_targets_side_by_side_are_tracked_as_alone(root, make):
    tracker = make()
    together = tracker(clouds(root), mode="predict")
    for both, one in zip(together, clouds(root), strict=True):
        alone = tracker([one], mode="predict")[0]
        assert_close(both["predicted"], alone["predicted"], atol=1e-5, rtol=0)
        assert torch.equal(alone["predicted"][0], one.tracklet.boxes[0])
        assert alone["predicted"].shape == alone["truth"].shape
        again = tracker([one], mode="predict")[0]
        assert torch.equal(alone["predicted"], again["predicted"])  # points are drawn alike


def test_coordinates_of_a_map_lose_nothing():
    """Half a million metres from the origin, where float32 has steps of 3 cm."""
    box = torch.tensor([0.0, 0, 0, 4, 2, 1.5, 0.3], dtype=torch.float64)
    cloud = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 3)))
    far = torch.tensor([512345.6, 5412345.6, 100.0], dtype=torch.float64)
    moved = torch.cat([box[:3] + far, box[3:]])
    tracker = siamcut()
    (near,) = tracker.step([tracker.begin(cloud, box)], [cloud])
    (away,) = tracker.step([tracker.begin(cloud + far, moved)], [cloud + far])
    assert_close(away.box[:3] - far, near.box[:3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [siamcut, mocut])
@pytest.mark.parametrize(("turn", "lift"), [(90, 0.0), (180, 1.73), (45, 50.0)])
def test_axes_and_height_of_the_sensor_do_not_matter(make, turn, lift):
    """Whichever way x points and wherever the ground is, the box goes the same way."""
    tracker = make()
    box = torch.tensor([12.0, 3, -0.9, 4, 2, 1.5, 0.3], dtype=torch.float64)
    cloud = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 3))) + box[:3]
    angle = math.radians(turn)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    turned, other = cloud.clone(), box.clone()
    turned[:, :2], other[:2] = cloud[:, :2] @ rotation.T, rotation @ box[:2]
    turned[:, 2] += lift
    other[2] += lift
    other[6] += angle
    (here,) = tracker.step([tracker.begin(cloud, box)], [cloud])
    (there,) = tracker.step([tracker.begin(turned, other)], [turned])
    assert_close(there.box[:2], rotation @ here.box[:2], atol=1e-3, rtol=0)
    assert_close(there.box[2] - lift, here.box[2], atol=1e-3, rtol=0)
    assert float(boxes3d.wrap_angle(there.box[6] - here.box[6] - angle).abs()) < 1e-3


def test_unknown_losses_are_refused():
    with pytest.raises(ValueError, match="losses are"):
        siamcut(losses="bat")
    with pytest.raises(ValueError, match="losses are"):
        mocut(losses="p2b")


def test_inputs_of_training_and_tracking_are_the_same():
    """The crop of a true box is one input, however it is made."""
    tracker = mocut()
    tracker.network = Oracle(MotionOutput(*(torch.zeros(1, 4) for _ in range(4)), *(torch.zeros(1) for _ in range(3))))
    box = torch.tensor([3.0, 1, 0, 4, 2, 1.5, 0.3], dtype=torch.float64)
    cloud = torch.randn(64, 3, dtype=torch.float64) * 0.5 + box[:3]
    tracker.step([tracker.begin(cloud, box)], [cloud])
    local = boxes3d.to_box_frame(cloud, box).float()
    own = boxes3d.relative_to(box, box).float()
    expected = motion_inputs(local, local, own, certain=True)
    for name, value in expected.items():
        assert_close(tracker.network.asked[0][name][0], value, atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------------------- recipes

RECIPES = [CONFIGS / "adaformer.py", *sorted((CONFIGS / "adaformer").glob("*.py"))]


@pytest.mark.parametrize("name", ["siamcut", "mocut"])
def test_demos_and_their_controls_see_the_same_data(name):
    demo, control = (load_config(str(CONFIGS / "demo" / f"{one}.py")) for one in (name, f"{name}_plain"))
    for part in ("train_dataloader", "val_dataloader"):
        assert demo[part].dataset.tracklets == control[part].dataset.tracklets
        assert demo[part].batch_size == control[part].batch_size
    assert demo.train_dataloader.dataset.candidates == control.train_dataloader.dataset.candidates
    assert (demo.train_cfg, demo.param_scheduler) == (control.train_cfg, control.param_scheduler)
    assert demo.model.get("proposals") == control.model.get("proposals")
    for config in (demo, control):
        assert config.train_dataloader.dataset.area == config.model.area
        for key in ("points", "template_points", "search_points"):
            assert config.train_dataloader.dataset.get(key) == config.model.get(key)
        MODELS.build(config.model)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_consistent(path):
    """What the samples hold is what the model takes, and training and tracking look equally far around."""
    config = load_config(str(path))
    data, model = config.train_dataloader.dataset, config.model
    assert data.area == model.area
    assert data.area.min_margin == (1.0 if "nuscenes" in path.stem else 0.5)
    if "lidar_sot" not in path.stem:  # trained on one set, tried on another
        assert config.test_dataloader.dataset.tracklets.categories == data.tracklets.categories
    if "segmenter" in model:
        assert data.points == model.points
    else:
        assert (data.template_points, data.search_points) == (model.template_points, model.search_points)
        assert (data.size_channels, data.get("degrees", False)) == (model.size_channels, model.get("degrees", False))
        assert model.backbone.get("in_channels", 0) == 3 * data.size_channels
    unified = model.get("losses", "unified") == "unified"
    if "calibration" in data.tracklets:
        assert data.tracklets.calibration == ("rectified" if unified else "released")
    assert config.train_cfg.max_epochs == (160 if unified else 60 if "segmenter" not in model else 180)
    MODELS.build(model)


def test_published_sizes():
    """SiamCUT has P2B's heads on AdaFormer with three features a point."""
    siamese = MODELS.build(Config.fromfile(CONFIGS / "adaformer.py").model)
    assert sum(p.numel() for p in siamese.network.backbone.parameters()) == 2_207_314 + 3 * 64
    p2b = MODELS.build(Config.fromfile(CONFIGS / "adaformer" / "p2b_kitti_car.py").model)
    assert sum(p.numel() for p in p2b.parameters()) == 1_339_977
    m2track = MODELS.build(Config.fromfile(CONFIGS / "adaformer" / "m2track_kitti_car.py").model)
    assert sum(p.numel() for p in m2track.parameters()) == 2_238_105
