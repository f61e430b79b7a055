"""GIoU-aware classification loss, matching cost and hybrid criterion, by hand and by invariants."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.ops import sigmoid_focal_loss

from projects.rank_detr.losses import RankDetrCriterion, giou_aware_classification_loss
from projects.rank_detr.matching import RankDetrMatcher, iou_and_giou

from .tiny import LAYERS, ONE2MANY, ONE2ONE, TinyRankDetr, features


def logit(p: float) -> torch.Tensor:
    return torch.logit(torch.tensor([[p]], dtype=torch.float64))


def targets(*counts: int, classes: int = 5) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for count in counts:
        centre = 0.3 + 0.4 * torch.rand(count, 2, generator=generator)
        size = 0.1 + 0.2 * torch.rand(count, 2, generator=generator)
        labels = torch.randint(0, classes, (count,), generator=generator)
        made.append(dict(labels=labels, boxes=torch.cat([centre, size], 1)))
    return made


def test_gcl_by_hand():
    one, zero, t = torch.ones(1, 1).double(), torch.zeros(1, 1).double(), torch.full((1, 1), 0.8).double()
    assert giou_aware_classification_loss(logit(0.6), one, t).item() == pytest.approx(0.00592, abs=5e-6)
    assert giou_aware_classification_loss(logit(0.6), zero, zero).item() == pytest.approx(0.2474, abs=5e-5)
    assert giou_aware_classification_loss(logit(0.8), one, t).item() == pytest.approx(0.0, abs=1e-12)


def test_gcl_of_perfect_boxes_is_focal_loss_and_moves_no_box():
    generator = torch.Generator().manual_seed(0)
    wanted = targets(3, 2)
    logits = torch.randn(1, 2, 8, 5, generator=generator)
    boxes = torch.rand(1, 2, 8, 4, generator=generator) * 0.2 + 0.4
    for image, target in enumerate(wanted):
        boxes[0, image, : len(target["boxes"])] = target["boxes"]
    boxes.requires_grad_()
    matcher = RankDetrMatcher()
    matcher.iteration = matcher.change_iter
    aware = RankDetrCriterion(matcher, giou_aware_class_loss=True).decoder_losses(logits, boxes, wanted)
    focal = RankDetrCriterion(matcher, giou_aware_class_loss=False).decoder_losses(logits, boxes, wanted)
    assert_close(aware["loss_class"], focal["loss_class"], rtol=1e-4, atol=0)
    assert not aware["loss_class"].requires_grad


def test_gcl_gradcheck():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    one_hot = F.one_hot(torch.tensor([0, 2, 1, 1]), 3).double()
    quality = torch.rand(4, 1, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: giou_aware_classification_loss(z, one_hot, quality), logits)


def test_high_order_cost_by_hand_and_monotone():
    matcher = RankDetrMatcher()
    matcher.iteration = matcher.change_iter
    target = dict(labels=torch.tensor([0]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    half = torch.tensor([[0.5, 0.5, 0.2, 0.1]])  # half of the target, inside it
    assert matcher.cost(logit(0.6), half, target).item() == pytest.approx(-0.0375, rel=1e-3)
    heights = torch.linspace(0.02, 0.2, 10)
    boxes = torch.stack([torch.tensor([0.5, 0.5, 0.2, h]) for h in heights])
    assert (matcher.cost(logit(0.6).expand(10, 1), boxes, target)[:, 0].diff() < 0).all()
    probabilities = torch.logit(torch.linspace(0.1, 0.9, 9))[:, None]
    assert (matcher.cost(probabilities, half.expand(9, 4), target)[:, 0].diff() < 0).all()


def test_gcl_without_alpha():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    one_hot, quality = F.one_hot(torch.tensor([0, 2, 1, 1]), 3).float(), torch.rand(4, 1, generator=generator)
    prob, target = logits.sigmoid(), one_hot * quality
    weight = torch.where(one_hot > 0, (target - prob).abs(), prob) ** 2
    expected = F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
    assert_close(giou_aware_classification_loss(logits, one_hot, quality, alpha=-1), expected)


def test_cost_of_classes_that_exclude_each_other():
    """The released matcher's "ce_cost"."""
    matcher = RankDetrMatcher(softmax=True, class_weight=3.0, bbox_weight=0.0, giou_weight=0.0)
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    target = targets(4)[0]
    boxes = target["boxes"][:1].expand(7, 4)
    assert_close(matcher.cost(logits, boxes, target), -3 * logits.softmax(-1)[:, target["labels"]])
    matcher.iteration = matcher.change_iter
    expected = -logits.softmax(-1)[:, target["labels"]] * iou_and_giou(boxes[:, None], target["boxes"])[0] ** 4
    assert_close(matcher.cost(logits, boxes, target), expected)


def test_cost_can_stay_weighted():
    matcher = RankDetrMatcher(change_iter=None)
    matcher.iteration = 10**9
    assert not matcher.high_order
    assert not RankDetrMatcher().high_order  # outside training


def test_iou_eps_is_felt_in_normalised_units():
    box = torch.tensor([[0.5, 0.5, 0.003, 0.003]])
    assert iou_and_giou(box, box)[1].item() == pytest.approx(0.90, abs=0.005)


def test_diverged_predictions_are_named():
    matcher = RankDetrMatcher()
    matcher.iteration = 12
    boxes = torch.full((1, 1, 4, 4), torch.nan)
    with pytest.raises(FloatingPointError, match="iteration 12"):
        matcher(torch.zeros(1, 1, 4, 5), boxes, targets(1))


def test_hybrid_criterion_terms():
    model = TinyRankDetr().randomise(torch.Generator().manual_seed(0))
    output = model(*features(torch.Generator().manual_seed(1)))
    wanted = targets(3, 1)
    criterion = RankDetrCriterion(RankDetrMatcher(), lambda_one2many=0.5)
    losses = criterion(output, wanted)
    names = [f"loss_{kind}{suffix}" for suffix in ("", "_0", "_1") for kind in ("class", "bbox", "giou")]
    expected = {*names, *(f"{n}_one2many" for n in names), "loss_class_enc", "loss_bbox_enc", "loss_giou_enc"}
    assert losses.keys() == expected  # 6 * LAYERS + 3: 39 for six layers
    assert len(expected) == 6 * LAYERS + 3

    # The one-to-many branch is the same criterion on six-fold targets.
    repeated = [dict(labels=t["labels"].repeat(6), boxes=t["boxes"].repeat(6, 1)) for t in wanted]
    terms = criterion.decoder_losses(output.logits[:, :, ONE2ONE:], output.boxes[:, :, ONE2ONE:], repeated)
    assert output.logits.shape[2] == ONE2ONE + ONE2MANY
    for name, weight in (("loss_class", 2), ("loss_bbox_1", 5), ("loss_giou_0", 2)):
        assert_close(losses[f"{name}_one2many"], terms[name] * weight * 0.5)


def test_one_to_many_branch_can_be_left_out():
    output = TinyRankDetr(one2many=0)(*features(torch.Generator().manual_seed(1)))
    assert output.group_sizes == (ONE2ONE,)
    losses = RankDetrCriterion(RankDetrMatcher())(output, targets(3, 1))
    assert len(losses) == 3 * LAYERS + 3
    assert not any(name.endswith("one2many") for name in losses)


@pytest.mark.parametrize(("options", "left_out"), [(dict(k_one2many=0), "_one2many"), (dict(aux_loss=False), "_0")])
def test_losses_that_are_switched_off(options, left_out):
    output = TinyRankDetr().randomise(torch.Generator().manual_seed(0))(*features(torch.Generator().manual_seed(1)))
    wanted = targets(3, 1)
    everything = RankDetrCriterion(RankDetrMatcher())(output, wanted)
    some = RankDetrCriterion(RankDetrMatcher(), **options)(output, wanted)
    earlier = ("_0", "_1", "_0_one2many", "_1_one2many") if left_out == "_0" else ("_one2many",)
    assert some.keys() == {name for name in everything if not name.endswith(earlier)}
    for name, value in some.items():
        assert_close(value, everything[name])


def test_double_precision_stays():
    model = TinyRankDetr().randomise(torch.Generator().manual_seed(0))
    feats, masks = features(torch.Generator().manual_seed(1))
    single = model(feats, masks)
    double = model.double()([feat.double() for feat in feats], masks)
    assert {double.logits.dtype, double.boxes.dtype, double.enc_boxes.dtype} == {torch.float64}
    assert_close(double.enc_boxes, single.enc_boxes.double(), rtol=0, atol=1e-5)
    criterion = RankDetrCriterion(RankDetrMatcher())
    losses = criterion(double, targets(3, 1))
    for name, value in criterion(single, targets(3, 1)).items():
        assert losses[name].dtype == torch.float64
        assert_close(losses[name], value.double(), rtol=1e-3, atol=1e-4)


def test_encoder_learns_objectness_on_channel_zero():
    logits = torch.zeros(1, 6, 5, requires_grad=True)
    boxes = torch.full((1, 6, 4), 0.5)
    criterion = RankDetrCriterion(RankDetrMatcher())
    wanted = [dict(labels=torch.tensor([3]), boxes=torch.tensor([[0.5, 0.5, 0.5, 0.5]]))]
    criterion.encoder_losses(logits, boxes, wanted)["loss_class_enc"].backward()
    pushed_up = logits.grad < 0
    assert pushed_up.sum() == 1
    assert pushed_up[0, :, 0].any()


def test_more_targets_than_queries_keeps_each_image_with_its_own_boxes():
    """The released code's running offset gives later images the boxes of earlier ones."""
    generator = torch.Generator().manual_seed(0)
    logits, boxes = (
        torch.randn(1, 2, 4, 5, generator=generator),
        torch.rand(1, 2, 4, 4, generator=generator) * 0.3 + 0.3,
    )
    wanted = targets(6, 2)
    criterion = RankDetrCriterion(RankDetrMatcher())
    both = criterion.decoder_losses(logits, boxes, wanted)
    apart = [criterion.decoder_losses(logits[:, i : i + 1], boxes[:, i : i + 1], wanted[i : i + 1]) for i in range(2)]
    for name in ("loss_class", "loss_bbox", "loss_giou"):
        assert_close(both[name] * 8, apart[0][name] * 6 + apart[1][name] * 2)


def test_batch_without_targets():
    model = TinyRankDetr()
    output = model(*features(torch.Generator().manual_seed(1)))
    losses = RankDetrCriterion(RankDetrMatcher())(output, targets(0, 0))
    sum(losses.values()).backward()
    for name, loss in losses.items():
        assert loss.isfinite()
        assert (loss > 0) == ("class" in name)


def test_focal_loss_in_evaluation_mode():
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(1, 1, 6, 5, generator=generator), torch.full((1, 1, 6, 4), 0.4)
    criterion = RankDetrCriterion(RankDetrMatcher()).eval()
    loss = criterion.decoder_losses(logits, boxes, targets(0))["loss_class"]
    assert_close(loss, sigmoid_focal_loss(logits, torch.zeros_like(logits), reduction="sum"))
