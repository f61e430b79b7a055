"""The detector: frames, mirrored and padded images, batches, both heads' losses, the two-stage variant."""

import copy

import numpy as np
import pytest
import torch
from mmdet.models import FPN, ResNet
from mmengine.structures import BaseDataElement, InstanceData
from torch.testing import assert_close

from perception.engine.errors import UserError
from perception.geometry import bev, boxes3d, cameras, se3
from projects.bevformer_v2.detector import BEVFormerV2, evaluating
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.perspective.head import NuscenesDD3D
from projects.bevformer_v2.perspective.losses import PerspectiveCriterion
from projects.bevformer_v2.preprocessor import RigPreprocessor
from tests.projects.bevformer_v2.tiny import HEIGHT, SIZES, WIDTH, objects, rig_poses

TRANSFORMER = {**SIZES["transformer"], "num_levels": 4}


def model(seed=0, frames=(0,), perspective=True, **settings):
    torch.manual_seed(seed)
    transformer = dict(TRANSFORMER, frames=frames, fusion_channels=32)
    backbone = dict(type=ResNet, depth=18, stem_channels=8, base_channels=8, out_indices=(1, 2, 3), style="caffe")
    neck = dict(type=FPN, in_channels=[16, 32, 64], out_channels=32, num_outs=5, add_extra_convs="on_output")
    return BEVFormerV2(
        img_backbone=dict(backbone, norm_eval=False),
        img_neck=dict(neck, relu_before_extra_convs=True),
        pts_bbox_head=dict(type=BEVFormerHead, **{**SIZES, "transformer": transformer}, **settings),
        fcos3d_bbox_head=dict(type=NuscenesDD3D, in_channels=32) if perspective else None,
        data_preprocessor=dict(type=RigPreprocessor),
    )


def camera_objects(count, generator):
    low = torch.rand(count, 2, generator=generator) * 30
    return InstanceData(
        boxes_2d=torch.cat([low, low + 8 + 20 * torch.rand(count, 2, generator=generator)], 1),
        rotations=torch.randn(count, 4, generator=generator),
        translations=torch.rand(count, 3, generator=generator) * torch.tensor([4.0, 2, 10]) + torch.tensor([0, 0, 6.0]),
        sizes=torch.rand(count, 3, generator=generator) + 1,
        labels=torch.randint(10, (count,), generator=generator),
        attributes=torch.randint(4, (count,), generator=generator),
        speeds=torch.rand(count, generator=generator),
    )


def item(seed=0, offsets=(0,), height=HEIGHT, width=WIDTH, turn=0.0, cameras_with_objects=(0, 3), **meta):
    """A sample as the data sets pack it."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (len(offsets), 6, 3, height, width), generator=generator, dtype=torch.uint8)
    intrinsics, poses = rig_poses(turn)
    own = cameras.image_matrix(intrinsics, poses).double().numpy()
    motions = [se3.compose(torch.eye(3), torch.tensor([0, 2.0 * offset, 0])).double().numpy() for offset in offsets]
    sample = BaseDataElement(
        metainfo=dict(
            offsets=list(offsets),
            lidar2img=np.stack([own @ motion for motion in motions]),
            cam2img=np.stack([intrinsics.numpy()] * 6),
            img_shape=(height, width),
            token=f"{seed}",
            **meta,
        )
    )
    target = objects(4, seed)
    boxes = boxes3d.legacy_sizes_and_yaw(target.boxes)
    boxes[0, 7:] = torch.nan
    per_camera = [camera_objects(3 if n in cameras_with_objects else 0, generator) for n in range(6)]
    sample.set_data(dict(gt_instances=InstanceData(bboxes_3d=boxes, labels=target.labels), camera_instances=per_camera))
    return {"inputs": {"img": images}, "data_samples": sample}


def batch(detector, *items, training=False):
    data = {
        "inputs": {"img": [one["inputs"]["img"] for one in items]},
        "data_samples": [one["data_samples"].clone() for one in items],
    }
    prepared = detector.data_preprocessor(copy.deepcopy(data), training)
    return prepared["inputs"]["img"], prepared["data_samples"]


# -------------------------------------------------------------------------------------------------------- preprocessing


def test_images_are_normalised_in_the_networks_order():
    images, _ = batch(model(), item())
    raw = item()["inputs"]["img"].float()
    assert_close(images[0][:, :, 0], raw[:, :, 2] - 103.53)
    assert_close(images[0][:, :, 2], raw[:, :, 0] - 123.675)


def test_padding():
    detector = model()
    images, samples = batch(detector, item(width=90), item(height=70, width=80, flip=True))
    assert [tuple(x.shape[-2:]) for x in images] == [(96, 96)] * 2
    assert [sample.pad_shape for sample in samples] == [(64, 96), (96, 96)]
    assert not images[0][..., 90:].any()
    assert not images[1][..., :16].any()
    assert images[1][..., 0, 16:].all()
    assert not images[1][..., 70:, :].any()
    detector.data_preprocessor.pad_flipped_left = False  # as released
    images, _ = batch(detector, item(height=70, width=80, flip=True))
    assert not images[0][..., 80:].any()


def test_grid_mask_hides_the_current_frame_alone():
    mask = np.zeros((HEIGHT, WIDTH), bool)  # of the padded image
    mask[:, :48] = True
    images, _ = batch(model(), item(offsets=(-1, 0), width=90, grid_mask=mask))
    assert not images[0][1, ..., 48:].any()
    assert images[0][0, ..., 48:].any()
    assert images[0][1, ..., :48].any()


# ------------------------------------------------------------------------------------------------------------ detection


def predict(detector, *items):
    return detector.eval()(*_named(batch(detector, *items)), mode="predict")


def _named(prepared):
    images, samples = prepared
    return {"img": images}, samples


def test_predictions():
    found = predict(model(), item())[0].pred_instances
    assert found.bboxes_3d.shape == (120, 9)
    assert (found.scores.diff() <= 0).all()
    assert (found.bboxes_3d[:, 6].abs() <= torch.pi).all()


def test_boxes_come_in_the_suites_convention():
    detector = model().eval()
    images, samples = batch(detector, item())
    raw = detector.pts_bbox_head.detect(detector(*_named((images, samples))))[0]
    found = detector(*_named((images, samples)), mode="predict")[0].pred_instances
    assert_close(found.bboxes_3d[:, 3:5], raw.boxes[:, [4, 3]])  # length before width
    assert_close(found.bboxes_3d[:, 2], raw.boxes[:, 2])
    heading = torch.stack([-raw.boxes[:, 6].sin(), -raw.boxes[:, 6].cos()], 1)
    yaw = found.bboxes_3d[:, 6]
    assert_close(torch.stack([yaw.cos(), yaw.sin()], 1), heading, atol=1e-5, rtol=0)


def test_a_batch_equals_its_samples():
    """With different rigs, different frames missing, one of two mirrored."""
    detector = model(frames=(-2, -1, 0)).eval()
    items = (
        item(0, (-2, -1, 0)),
        item(1, (-1, 0), turn=0.4, flip=True, bda_inverse=np.diag([-1.0, 1, 1])),
        item(2, (0,)),
    )
    whole = detector(*_named(batch(detector, *items)))
    for b, one in enumerate(items):
        single = detector(*_named(batch(detector, one)))
        assert_close(whole.logits[:, b : b + 1], single.logits, atol=1e-4, rtol=1e-4)
        assert_close(whole.codes[:, b : b + 1], single.codes, atol=1e-3, rtol=1e-4)


def test_mirrored_images_give_mirrored_back_features():
    """Of a network whose kernels are symmetric: much the features of the image as it is."""
    detector = model(perspective=False).eval()
    with torch.no_grad():
        for part in detector.modules():
            if isinstance(part, torch.nn.Conv2d):
                part.weight.copy_((part.weight + part.weight.flip(-1)) / 2)
    plain, mirrored = item(0), item(0, flip=True)
    coarse = torch.rand(6, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 255).byte()[None]
    plain["inputs"]["img"], mirrored["inputs"]["img"] = smooth, smooth.flip(-1)
    images, samples = batch(detector, plain)
    straight = detector._extract(images, samples, [0])
    images, samples = batch(detector, mirrored)
    back = detector._extract(images, samples, [0])
    # Not the same, since strides take other columns of a mirrored image.
    correlation = torch.corrcoef(torch.stack([straight[0].flatten(), back[0].flatten()]))[0, 1]
    unmirrored = torch.corrcoef(torch.stack([straight[0].flatten(), back[0].flip(-1).flatten()]))[0, 1]
    assert correlation > 0.5
    assert correlation > unmirrored + 0.3


def test_earlier_frames_are_looked_at_as_in_evaluation():
    detector = model(frames=(-1, 0)).train()
    detector.img_backbone.layer1.eval()
    images, samples = batch(detector, item(0, (-1, 0)))
    before = {key: value.clone() for key, value in detector.state_dict().items() if "running_mean" in key}
    views, present = detector._history(images, samples)
    assert present.tolist() == [[True, True]]
    assert views[1] is None
    assert not views[0].requires_grad
    assert detector.training
    assert not detector.img_backbone.layer1.training
    assert all(value.equal(before[key]) for key, value in detector.state_dict().items() if "running_mean" in key)
    with evaluating(detector):
        feats = detector._bev_levels(detector._extract(images, samples, [-1]))
    assert feats[0].shape == (1, 6, 32, 8, 12)


def test_ground_truth_is_moved_with_the_view():
    """Augmented ground truth comes with the inverse of what moved it."""
    matrix = bev.augmentation_matrix(0.3, 1.04, True, False)
    detector = model().eval()
    still = detector(*_named(batch(detector, item())))
    moved = detector(*_named(batch(detector, item(bda_inverse=torch.linalg.inv(matrix).numpy()))))
    grid = detector.pts_bbox_head.transformer.grid
    expected = bev.warp(still.bev.mT.unflatten(-1, (16, 16)), torch.linalg.inv(matrix)[None].float(), grid)
    assert_close(moved.bev, expected.flatten(2).mT, atol=1e-5, rtol=1e-5)
    identity = detector(*_named(batch(detector, item(bda_inverse=np.eye(3)))))
    assert identity.codes.equal(still.codes)


# ------------------------------------------------------------------------------------------------------------- training


NAMES = {
    *("loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"),
    *(f"loss_{name}_mono" for name in ("cls", "box2d_reg", "centerness", "conf3d", "attr", "speed")),
    *(f"loss_box3d_{name}_mono" for name in ("quat", "proj_ctr", "depth", "size")),
}


def test_losses():
    detector = model(frames=(-1, 0)).train()
    items = item(0, (-1, 0)), item(1, (0,), cameras_with_objects=())
    losses = detector(*_named(batch(detector, *items, training=True)), mode="loss")
    assert set(losses) == NAMES
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    idle = {name for name, p in detector.named_parameters() if p.grad is None}
    assert idle == set()


def test_other_numbers_of_classes():
    """Canonical sizes come with the classes; nuScenes' are not silently taken for others."""
    with pytest.raises(ValueError, match=r"pts_bbox_head 3, fcos3d_bbox_head 10, the canonical sizes of .* 10"):
        model(num_classes=3)
    settings = dict(img_backbone=dict(type=ResNet, depth=18), img_neck=dict(type=FPN, in_channels=[8], num_outs=1))
    settings["img_neck"]["out_channels"] = 32
    heads = dict(
        pts_bbox_head=dict(type=BEVFormerHead, **SIZES, num_classes=2),
        fcos3d_bbox_head=dict(type=NuscenesDD3D, num_classes=2, in_channels=32),
    )
    own = dict(canonical_sizes=((1.8, 4.5, 1.5), (2.5, 9.0, 3.0)), max_depth=120.0)
    detector = BEVFormerV2(**settings, **heads, perspective_criterion=dict(type=PerspectiveCriterion, decoding=own))
    assert detector.perspective_criterion.decoding.max_depth == 120.0
    assert detector.perspective_criterion.decoding.canonical_sizes[1] == (2.5, 9.0, 3.0)


def test_losses_without_any_object():
    detector = model().train()
    one = item(0, cameras_with_objects=())
    one["data_samples"].gt_instances = one["data_samples"].gt_instances[:0]
    losses = detector(*_named(batch(detector, one)), mode="loss")
    assert set(losses) == NAMES
    sum(losses.values()).backward()
    assert {name for name, p in detector.named_parameters() if p.grad is None} == set()
    zero = {name for name, loss in losses.items() if not loss.any()}
    assert zero == NAMES - {"loss_cls", "d0.loss_cls", "loss_cls_mono"}


def test_cameras_without_objects_do_not_train_the_perspective_head():
    detector = model().train()
    calls = []
    detector.fcos3d_bbox_head.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0][0])))
    detector(*_named(batch(detector, item(0), item(1, cameras_with_objects=(2,)))), mode="loss")
    assert calls == [3]
    # One whose objects were all cut off with the sky counts, as in the released code: it shows none.
    cropped = item(2, cameras_with_objects=(2,), annotated_cameras=(True, False, True, False, False, False))
    detector(*_named(batch(detector, cropped)), mode="loss")
    assert calls == [3, 2]


def test_autocast_trains():
    detector = model(frames=(-1, 0)).train()
    prepared = _named(batch(detector, item(0, (-1, 0))))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(*prepared, mode="loss")
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()


# ----------------------------------------------------------------------------------------------------------- two stages


def test_two_stages():
    detector = model(num_proposals=5).train()
    inverse = np.linalg.inv(bev.augmentation_matrix(0.2, 1.0, False, True).numpy())
    losses = detector(*_named(batch(detector, item(0, bda_inverse=inverse), item(1))), mode="loss")
    assert set(losses) == NAMES
    found = predict(detector, item())[0].pred_instances
    assert len(found.scores) == 170  # of 12 + 5 queries and 10 classes
    with pytest.raises(UserError, match="grid mask"):
        detector(*_named(batch(detector, item(0, grid_mask=np.ones((HEIGHT, WIDTH))))), mode="loss")
    with pytest.raises(ValueError, match="needs fcos3d_bbox_head"):
        model(num_proposals=5, perspective=False)


def test_proposals_are_where_the_cameras_see_them():
    """Boxes of all cameras lie in front of them, and turn with the augmentation of the ground."""
    detector = model(num_proposals=40).eval()
    images, samples = batch(detector, item())
    feats = detector._extract(images, samples, [0])
    centers = detector._propose(feats, samples).centers[0]
    matrices = torch.as_tensor(samples[0].lidar2img[0]).float()
    seen = torch.stack([cameras.project(centers, matrix).valid for matrix in matrices])
    assert seen.any(0).all()
    matrix = bev.augmentation_matrix(0.5, 1.0, False, False).float()
    samples[0].set_metainfo(dict(bda_inverse=torch.linalg.inv(matrix).numpy()))
    assert_close(detector._propose(feats, samples).centers[0], centers @ matrix.T, atol=1e-3, rtol=1e-4)
