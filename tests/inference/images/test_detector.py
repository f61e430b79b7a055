"""The model's side: results that are mmdet's own, and do not depend on who shares the batch."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from perception.datasets.palette import default_palette
from perception.engine.checkpoint import CheckpointError
from perception.engine.errors import UserError
from perception.inference.images.detector import Detector, _detections, classes_and_palette
from tests.inference.conftest import SIZES, make_image

pytestmark = pytest.mark.xdist_group("inference")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["retinanet", "faster_rcnn"])
def files(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def detector(files):
    return Detector(Config.fromfile(files.config), files.checkpoint, CPU)


def _images():
    return [make_image(seed, *size) for seed, size in enumerate(SIZES * 2)]


def test_detections_are_those_of_mmdet_itself(files, detector, tmp_path):
    from mmdet.apis import inference_detector, init_detector

    reference = init_detector(str(files.config), str(files.checkpoint), device="cpu", palette="random")
    for image in _images()[:4]:
        found = detector.predict([detector.prepare(image, "a.jpg")], 0.0)[0]
        expected = inference_detector(reference, image[..., ::-1]).pred_instances  # mmdet takes BGR
        order = expected.scores.argsort(descending=True, stable=True)
        assert len(found.scores) == 12
        np.testing.assert_allclose(found.boxes, expected.bboxes[order], atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores[order], atol=1e-6)
        assert found.labels.tolist() == expected.labels[order].tolist()


def test_an_image_gets_the_same_detections_in_any_batch(detector):
    prepared = [detector.prepare(image, "a.jpg") for image in _images()]
    alone = [detector.predict([one], 0.0)[0] for one in prepared]
    # The detections say something about the image: they differ between images.
    assert len({tuple(found.boxes.round(2).ravel()) for found in alone}) == len(alone)
    shared = 0
    for shape in {one.shape for one in prepared}:
        group = [index for index, one in enumerate(prepared) if one.shape == shape]
        shared += len(group) > 2
        for index, found in zip(group, detector.predict([prepared[index] for index in group], 0.0)):
            np.testing.assert_allclose(found.boxes, alone[index].boxes, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(found.scores, alone[index].scores, atol=1e-5)
            assert found.labels.tolist() == alone[index].labels.tolist()
    assert shared


def test_foreign_padding_would_change_detections(detector):
    """Why images of different shapes are not put together: to a convolution, padding is black image."""
    small, large = (detector.prepare(make_image(seed, *size), "a") for seed, size in ((0, (64, 64)), (1, (128, 96))))
    assert small.shape != large.shape
    alone = detector.predict([small], 0.0)[0]
    padded = detector.predict([small, large], 0.0)[0]
    assert np.abs(alone.scores - padded.scores).max() > 1e-4


def test_images_share_a_shape_when_they_are_padded_alike(detector):
    shapes = [
        detector.prepare(make_image(0, *size), "a").shape for size in ((128, 96), (128, 90), (96, 128), (256, 192))
    ]
    assert shapes == [(3, 96, 128), (3, 96, 128), (3, 128, 96), (3, 96, 128)]


def test_the_threshold_leaves_the_best(detector):
    prepared = detector.prepare(make_image(0, 128, 96), "a")
    everything = detector.predict([prepared], 0.0)[0]
    assert (np.diff(everything.scores) <= 0).all()
    threshold = float(everything.scores[4])
    some = detector.predict([prepared], threshold)[0]
    assert np.array_equal(some.boxes, everything.boxes[everything.scores >= threshold])


def test_the_input_size_is_read_from_the_pipeline(detector):
    assert (detector.input_size.width, detector.input_size.height, detector.input_size.keep_ratio) == (128, 96, True)


def test_float_pixels_are_given_to_pipelines_that_want_them(retinanet):
    cfg = Config.fromfile(retinanet.config)
    cfg.test_dataloader.dataset.pipeline[0].to_float32 = True
    prepared = Detector(cfg, retinanet.checkpoint, CPU).prepare(make_image(0, 128, 96), "a")
    assert prepared.data["inputs"].dtype == torch.float32


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"type": "LoadImageFromFile", "color_type": "grayscale"}, "color_type='grayscale'"),
        ({"type": "LoadMultiChannelImageFromFiles"}, "has a LoadMultiChannelImageFromFiles"),
        ({"type": "mmdet.LoadProposals"}, "has a LoadProposals"),
    ],
)
def test_pipelines_that_a_folder_cannot_serve_are_refused(retinanet, step, words):
    cfg = Config.fromfile(retinanet.config)
    cfg.test_dataloader.dataset.pipeline[0] = step
    with pytest.raises(UserError, match=words):
        Detector(cfg, retinanet.checkpoint, CPU)


def test_a_config_without_a_test_pipeline_is_refused(retinanet):
    cfg = Config({"model": Config.fromfile(retinanet.config).model})
    with pytest.raises(UserError, match="has no test pipeline"):
        Detector(cfg, retinanet.checkpoint, CPU)


def test_weights_of_another_model_are_refused_with_numbers(retinanet, faster_rcnn):
    with pytest.raises(CheckpointError, match=r"not of this model: of its \d+ weights, \d+ missing .* \d+ unknown"):
        Detector(Config.fromfile(retinanet.config), faster_rcnn.checkpoint, CPU)


def test_a_model_with_more_labels_than_names_is_refused(retinanet, tmp_path):
    checkpoint = torch.load(retinanet.checkpoint, weights_only=True)
    checkpoint["meta"]["dataset_meta"]["classes"] = ("ship",)
    checkpoint["state_dict"]["bbox_head.retina_cls.bias"][2::3] += 5  # the third class wins
    torch.save(checkpoint, tmp_path / "a.pth")
    detector = Detector(Config.fromfile(retinanet.config), tmp_path / "a.pth", CPU)
    with pytest.raises(UserError, match="yields label 2, but only 1 classes are named"):
        detector.predict([detector.prepare(make_image(0, 128, 96), "a")], 0.0)


def _cfg(**dataset):
    return Config({"test_dataloader": {"dataset": {"type": "RepeatDataset", "dataset": dataset}}})


def test_names_and_colours_come_from_the_checkpoint_before_the_config():
    cfg = _cfg(metainfo={"classes": ("x", "y"), "palette": [(1, 2, 3), (4, 5, 6)]})
    own = {"meta": {"dataset_meta": {"classes": ("a", "b"), "palette": [[9, 9, 9], [8, 8, 8]]}}}
    assert classes_and_palette(own, cfg) == (("a", "b"), [(9, 9, 9), (8, 8, 8)])
    assert classes_and_palette({}, cfg) == (("x", "y"), [(1, 2, 3), (4, 5, 6)])
    # Files from before MMEngine, and bare state dicts.
    assert classes_and_palette({"meta": {"CLASSES": ("a", "b")}}, cfg)[0] == ("a", "b")
    assert classes_and_palette({"weight": 0}, _cfg(type="CocoDataset"))[0][:2] == ("person", "bicycle")


def test_a_palette_is_made_when_there_is_none_that_fits():
    for palette in (None, "random", [(1, 2, 3)]):
        meta = {"meta": {"dataset_meta": {"classes": ("a", "b"), "palette": palette}}}
        assert classes_and_palette(meta, Config())[1] == default_palette(2)


def test_classes_must_be_named_somewhere():
    with pytest.raises(UserError, match="names classes"):
        classes_and_palette({}, Config())


def test_heads_without_boxes_get_those_of_their_masks():
    """SOLO and its kin fill in zeros."""
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, 3:9, 5:15] = True
    masks[1, 10:12, 20:21] = True
    instances = InstanceData(
        bboxes=torch.zeros(2, 4), scores=torch.tensor([0.4, 0.9]), labels=torch.tensor([0, 1]), masks=masks
    )
    found = _detections(DetDataSample(pred_instances=instances), 0.0, 2)
    assert found.boxes.tolist() == [[20, 10, 21, 12], [5, 3, 15, 9]]
    assert found.masks[1].inside.all()
