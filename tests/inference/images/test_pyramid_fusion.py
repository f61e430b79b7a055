"""Pyramids of images for models that fuse levels: every window comes with what is around it."""

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from PIL import Image

from perception.engine.errors import UserError
from perception.geometry.pyramid import contexts_of
from perception.inference.folder import run
from perception.inference.images import pyramid as pyramid_module
from perception.inference.images.decoding import InputSize
from perception.inference.images.detector import Detector
from perception.inference.images.windowed import block_means
from tests.inference.conftest import make_image
from tests.inference.images.pyramids import Finder, make_job

pytestmark = pytest.mark.xdist_group("inference")


class TestFusion:
    @pytest.fixture(autouse=True)
    def _fuses(self, monkeypatch):
        monkeypatch.setattr(Finder, "fuses", True)

    @pytest.mark.parametrize("size", [(701, 523), (300, 290), (100, 90)])
    def test_native_windows_come_with_what_is_around_them(self, pyramid_files, finder, folder, tmp_path, size):
        image = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(image).save(folder / "scene.png")
        run(make_job(pyramid_files, folder, tmp_path / "out", patch=128, gap=24, fuse_at_test=True))
        fill = np.array(pyramid_module._FILL)
        seen = 0
        for data in finder[0].windows:
            if data["factor"] > 1:
                assert data["around"] is None
                continue
            around = data["around"]
            (x, y) = _place_of(data["pixels"], image)
            assert list(around.contexts) == contexts_of(*size, x, y, 128)
            for crop, context in zip(around.images, around.contexts, strict=True):
                reduced = block_means(image, context.factor)
                expected = np.broadcast_to(fill, (context.height, context.width, 3)).astype(np.uint8)
                rows = np.arange(context.top, context.top + context.height)
                columns = np.arange(context.left, context.left + context.width)
                inside = np.ix_((rows >= 0) & (rows < len(reduced)), (columns >= 0) & (columns < reduced.shape[1]))
                expected[inside] = reduced[np.ix_(
                    rows[(rows >= 0) & (rows < len(reduced))],
                    columns[(columns >= 0) & (columns < reduced.shape[1])],
                )]  # fmt: skip
                assert crop.dtype == torch.uint8
                np.testing.assert_array_equal(crop.numpy()[::-1].transpose(1, 2, 0), expected)  # the crop is BGR
                seen += 1
        assert seen >= 1

    def test_the_pipeline_must_keep_the_resolution(self, pyramid_files, finder, folder, tmp_path, monkeypatch):
        Image.fromarray(make_image(7, 60, 60)).save(folder / "scene.png")
        monkeypatch.setattr(Finder, "input_size", InputSize(128, 96, True))
        with pytest.raises(UserError, match="resizes to 128 x 96"):
            run(make_job(pyramid_files, folder, tmp_path / "out", fuse_at_test=True))

    def test_the_model_is_told(self, pyramid_files):
        """The real detector hands on factor and surroundings."""
        from mmengine.config import Config

        detector = Detector(Config.fromfile(pyramid_files.config), pyramid_files.checkpoint, torch.device("cpu"))
        assert not detector.fuses
        around = object()
        prepared = detector.prepare_window(make_image(0, 128, 96), "window", 4, around)
        assert isinstance(prepared.data["data_samples"], DetDataSample)
        assert prepared.data["data_samples"].factor == 4
        assert prepared.data["context"] is around
        assert "context" not in detector.prepare_window(make_image(0, 128, 96), "window", 1, None).data


def test_fusion_needs_a_model_that_fuses(pyramid_files, finder, folder, tmp_path):
    Image.fromarray(make_image(7, 60, 60)).save(folder / "scene.png")
    with pytest.raises(UserError, match="needs a model that fuses levels"):
        run(make_job(pyramid_files, folder, tmp_path / "out", fuse_at_test=True))


def _place_of(pixels, image):
    """Where a window of a noisy image lies."""
    height, width = (min(sizes) for sizes in zip(pixels.shape[:2], image.shape[:2]))
    scores = cv2.matchTemplate(image, pixels[:height, :width], cv2.TM_SQDIFF)
    return cv2.minMaxLoc(scores)[2]
