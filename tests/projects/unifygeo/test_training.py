"""Training: the decoder overfits, the tools run the demo's recipe, an interrupted run ends like a whole one."""

import math

import pytest
import torch

from perception.datasets.geolocalization import VigorPairs, VigorTiles
from perception.datasets.synthetic import cities
from perception.engine.config import load_config
from perception.engine.run import build_train_runner
from projects.unifygeo.decoder import PyramidDecoder
from projects.unifygeo.evaluation import similar_tiles
from projects.unifygeo.losses import map_cross_entropy, matching_losses
from projects.unifygeo.targets import LABEL_SIZE, target_maps, turned
from tests.conftest import REPOSITORY

METRES = dict(Ashford=0.11, Birchwood=0.11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "cities"
    params = cities.Params(tiles_per_side=3, train_cameras=6, test_cameras=2, tile_pixels=64, panorama_height=64)
    cities.write(out, params)
    return out


def options(folder, **more):
    found = {key.replace("__", "."): value for key, value in more.items()}
    for part in ("train_dataloader", "val_dataloader", "test_dataloader", "val_cfg.gallery", "test_cfg.gallery"):
        found[f"{part}.dataset.data_root"] = str(folder)
        found[f"{part}.num_workers"] = 0
    for part in ("gallery", "pairs"):
        found[f"custom_hooks.0.{part}.dataset.data_root"] = str(folder)
        found[f"custom_hooks.0.{part}.num_workers"] = 0
    found["train_dataloader.batch_size"] = 3
    return found


def train(folder, work_dir, resume=None, **more):
    cfg = load_config("configs/demo/unifygeo.py", options(folder, **more), str(work_dir))
    cfg.launcher, cfg.randomness = "none", dict(seed=0)
    cfg.resume, cfg.load_from = resume is not None, resume
    runner = build_train_runner(cfg)
    runner.train()
    return runner


def test_resumed_run_equals_the_uninterrupted_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    settings = dict(
        train_cfg__max_epochs=2,
        train_cfg__val_interval=10,
        custom_hooks__0__interval=1,  # neighbours by likeness from the second epoch on
        custom_hooks__1__begin=1,  # and the re-ranking loss
        default_hooks__checkpoint__by_epoch=False,
        default_hooks__checkpoint__interval=1,
        default_hooks__checkpoint__max_keep_ckpts=-1,
    )
    whole = train(folder, tmp_path / "whole", **settings)
    sampler = whole.train_dataloader.batch_sampler
    assert (sampler.neighbours[:, 0] != sampler.__class__(sampler.sampler, 3, 8, 24).neighbours[:, 0]).any()
    length = whole.iter // 2
    # Within the first epoch, and within the second, which draws from mined neighbours.
    for iteration in (1, length + 1):
        torch.manual_seed(123)
        resumed = train(folder, tmp_path / "resumed", str(tmp_path / "whole" / f"iter_{iteration}.pth"), **settings)
        assert (resumed.iter, resumed.epoch) == (whole.iter, 2)
        for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
            assert torch.equal(one, other), (iteration, name)


def test_mined_tiles_have_panoramas(folder):
    """As in Sample4Geo: lists and candidates are of the tiles that are trained on."""
    options = dict(data_root=str(folder), cities=("Ashford", "Birchwood"), metres_per_pixel=METRES)
    pairs, every = VigorPairs(split="train", **options), VigorTiles(split="train", **options)
    own = [pair.tiles[0] for pair in pairs.vigor.pairs]
    shown = [item["tile"] for item in VigorTiles(split="train", own_only=True, **options)]
    assert shown == sorted(set(own))
    assert len(shown) < len(every)
    torch.manual_seed(0)
    queries, gallery = torch.randn(len(own), 8), torch.randn(len(every), 8)
    lists = similar_tiles(own, queries, gallery[shown], 4, 3, numbers=shown, num_tiles=len(every))
    assert (lists == similar_tiles(own, queries, gallery, 4, 3)).all()
    for tile in range(len(every)):
        mine = [query for query, number in zip(queries, own) if number == tile]
        likeness = {}
        for query in mine:
            best = sorted(shown, key=lambda other: -float(query @ gallery[other]))[:4]
            for other in set(best) - {tile}:
                likeness[other] = max(likeness.get(other, -math.inf), float(query @ gallery[other]))
        expected = sorted(likeness, key=lambda other: -likeness[other])[:3]
        assert lists[tile].tolist() == expected + [-1] * (3 - len(expected))


def test_tools_train_and_test_the_demo(folder, tmp_path, run_tool):
    settings = options(folder, train_cfg__max_epochs=1, default_hooks__checkpoint__interval=1)
    arguments = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    done = run_tool("train", "configs/demo/unifygeo.py", "--work-dir", tmp_path, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    checkpoint = tmp_path / "epoch_1.pth"
    done = run_tool("test", "configs/demo/unifygeo.py", checkpoint, "--work-dir", tmp_path, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    for name in ("R@1:", "R@1%_rerank", "hit_rate_rerank", "median_m", "LF@1m_rerank"):
        assert name in done.out + done.err
    queries, gallery = (folder / "Ashford" / name for name in ("panorama", "satellite"))
    done = run_tool(
        "retrieve", "configs/demo/unifygeo.py", checkpoint, "--queries", queries, "--gallery", gallery,
        "--zoom", 20, "--query-places", "comma", "--bank", tmp_path / "bank", "--out", tmp_path / "out", "--workers", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 8
    assert len(list((tmp_path / "out" / "images").iterdir())) == 8


def test_decoder_overfits():
    torch.manual_seed(0)
    decoder = PyramidDecoder((64, 32, 16, 8), (8, 4, 2, 1), (4, 8), head_channels=(4, 2))
    volume = torch.randn(4, 64, 4, 8)
    pyramid = [torch.randn(4, width, 4 * 2**i, 4 * 2**i) for i, width in enumerate((64, 32, 16, 8))]
    offsets = torch.tensor([[0.0, 0.0], [150.0, -100.0], [-120.0, 60.0], [80.0, 200.0]])
    targets = target_maps(offsets, 128)
    optimizer = torch.optim.AdamW(decoder.parameters(), 1e-3)
    for step in range(160):
        location = decoder(volume, pyramid)
        cross_entropy = map_cross_entropy(location.logits, targets)
        matching = matching_losses(location.scores, targets, range(4), 0.1, 1e-2)
        if step == 0:
            first = (cross_entropy.item(), matching.item())
        optimizer.zero_grad()
        (cross_entropy + matching).backward()
        optimizer.step()
    labels = targets.flatten(1) / targets.flatten(1).sum(1, keepdim=True)
    floor = -(labels * labels.clamp(min=1e-30).log()).sum(1).mean().item()
    assert floor == pytest.approx(5.594, abs=5e-3)
    assert floor <= cross_entropy.item() < floor + 0.15
    assert first[0] == pytest.approx(10, abs=0.5)
    assert matching.item() < first[1] / 2
    found, wanted = location.logits.argmax(1), targets.flatten(1).argmax(1)
    for index in range(4):
        a, b = divmod(found[index].item(), 128), divmod(wanted[index].item(), 128)
        assert math.dist(a, b) <= 2.5  # sigma is 4 pixels: the peak is flat


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_targets_follow_the_turned_point(flip, turns):
    """A single bright pixel of the tile, where the camera is, stays under the target's maximum."""
    size = 64
    row, column = 40, 13
    # The released convention: cell i is at linspace(-S/2, S/2, S)[i], rounded offsets count from the middle.
    offset = torch.tensor([[(row - size / 2) * LABEL_SIZE / size, (size / 2 - column) * LABEL_SIZE / size]])
    target = target_maps(offset, size, 2.0)
    tile = torch.zeros(1, 1, size, size)
    tile.view(-1)[target.argmax()] = 1
    flags, counts = torch.tensor([flip]), torch.tensor([turns])
    assert turned(target, flags, counts).argmax() == turned(tile, flags, counts).argmax()
    assert divmod(int(target.argmax()), size) in ((row, column), (row - 1, column), (row, column - 1))
