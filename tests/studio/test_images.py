"""Images that are read when they are needed show what a table of all of them shows."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from perception.datasets.synthetic import radiance
from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.errors import SceneError
from perception.studio.images import LazyPixelStore, PixelStore

pytestmark = pytest.mark.xdist_group("nerfstudio")
SHAPES = [(12, 10, 4), (9, 11, 3), (8, 8, 4), (10, 12, 3)]


def write_images(folder, number: int):
    rng = np.random.default_rng(number)
    paths = [folder / f"{number}_{view}.png" for view in range(len(SHAPES))]
    for path, shape in zip(paths, SHAPES):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    frames = []
    for path, (height, width, _) in zip(write_images(tmp_path, 0), SHAPES):
        direction = rng.normal(size=3)
        pose = radiance.look_at_origin(direction / np.linalg.norm(direction)).tolist()
        intrinsics = {"h": height, "w": width, "fl_x": 20.0, "fl_y": 20.0, "cx": width / 2, "cy": height / 2}
        frames.append({"file_path": path.name, "transform_matrix": pose, **intrinsics})
    names = [frame["file_path"] for frame in frames]
    splits = {"train_filenames": names, "val_filenames": names[:1], "test_filenames": names[:1]}
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames, **splits}))
    return tmp_path


def manager(folder, **settings) -> RayDataManager:
    parser = NerfstudioDataParserConfig(
        orientation_method="none", center_method="none", auto_scale_poses=False, load_3D_points=False
    )
    torch.manual_seed(0)
    return RayDataManager(RayDataManagerConfig(dataparser=parser, data=folder, train_num_rays_per_batch=64, **settings))


@pytest.mark.parametrize("held", [1, 2, 9])
def test_nothing_depends_on_how_many_are_held(folder, held):
    table, lazy = manager(folder), manager(folder, images_in_memory=held)
    assert isinstance(table.pixels, PixelStore)
    assert isinstance(lazy.pixels, LazyPixelStore)
    assert lazy.pixels.sizes == table.pixels.sizes == [shape[:2] for shape in SHAPES]
    every = torch.arange(table.pixels.num_pixels)[torch.randperm(table.pixels.num_pixels)]
    for background in (torch.ones(3), torch.tensor([0.2, 0.5, 0.0])):
        assert torch.equal(lazy.pixels.colours(every, background), table.pixels.colours(every, background))
    for step in range(4):
        (first, second), (other, others) = table.next_train(step), lazy.next_train(step)
        assert torch.equal(first.origins, other.origins)
        assert all(torch.equal(value, others[name]) for name, value in second.items())
    assert torch.equal(lazy.pixels.checksums(), table.pixels.checksums())
    assert len(lazy.pixels.held) <= held
    assert lazy.pixels.colours(torch.zeros(0, dtype=torch.long), torch.ones(3)).shape == (0, 3)


def test_an_image_is_read_when_it_is_needed(folder, monkeypatch):
    made = manager(folder, images_in_memory=2)
    read = []
    decode = type(made.train_dataset).get_numpy_image
    monkeypatch.setattr(
        type(made.train_dataset), "get_numpy_image", lambda self, view: (read.append(view), decode(self, view))[1]
    )
    first = made.pixels.first.tolist()
    for view in (1, 1, 3, 1, 0, 3):
        made.pixels.colours(torch.tensor([first[view] + 2]), torch.ones(3))
    assert read == [1, 3, 0, 3]  # of two held images the one that was used last stays


def test_a_frame_of_a_video(folder):
    later = write_images(folder, 5)
    stores = manager(folder).pixels, manager(folder, images_in_memory=1).pixels
    every = torch.arange(stores[0].num_pixels)
    before = [store.colours(every, torch.ones(3)) for store in stores]
    for store, old in zip(stores, before):
        store.show_frame(later)
        new = store.colours(every, torch.ones(3))
        assert not torch.equal(new, old)
        raw = np.asarray(Image.open(later[1]), np.float32).reshape(-1, 3) / 255
        torch.testing.assert_close(new[store.positions(every)[:, 0] == 1], torch.from_numpy(raw), atol=0, rtol=0)
        with pytest.raises(SceneError, match="a frame of 1 images for 4 cameras"):
            store.show_frame(later[:1])
    assert torch.equal(stores[0].colours(every, torch.ones(3)), stores[1].colours(every, torch.ones(3)))


def test_faults_are_said(folder):
    with pytest.raises(SceneError, match="images-in-memory must be at least 1, not 0"):
        manager(folder, images_in_memory=0)
    made = manager(folder, images_in_memory=1)
    made.train_dataset.image_filenames[2].write_bytes(b"nonsense")
    with pytest.raises(SceneError, match=r"cannot read .*0_2\.png"):
        made.pixels.colours(made.pixels.first[2:3], torch.ones(3))
