"""Invariants of the Rank-DETR transformer and heads."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from perception.layers.inverse_sigmoid import inverse_sigmoid
from projects.rank_detr.head import RankDetrHead
from projects.rank_detr.transformer import REFERENCE_EPS, RankDetrTransformer, group_attention_mask

from .tiny import CHANNELS, CLASSES, LAYERS, ONE2MANY, ONE2ONE, TinyRankDetr, features, traced


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_identity_fusion_is_h_deformable_detr_up_to_order():
    """With post_racq = [I | 0] and no rank bias, sorting is all that the rank designs do."""
    ranked = TinyRankDetr().randomise(generator()).double()
    for fuse in ranked.transformer.decoder.post_racq_trans:
        fuse.weight.data = torch.eye(CHANNELS, 2 * CHANNELS, dtype=torch.float64)
        fuse.bias.data.zero_()
    for table in ranked.head.rank_adaptive_classhead_emb:
        table.weight.data.zero_()
    plain = TinyRankDetr(rank_head=False, rank_layer=False).double()
    shared = {k: v for k, v in ranked.state_dict().items() if k in plain.state_dict()}
    plain.load_state_dict(shared)

    feats, masks = features(generator(1))
    feats = [feat.double() for feat in feats]
    got, calls = traced(ranked, feats, masks)
    wanted = plain(feats, masks)
    order = torch.arange(ONE2ONE + ONE2MANY).expand(2, -1)
    moved = 0
    for layer in range(LAYERS):
        assert_close(got.logits[layer], _rows(wanted.logits[layer], order), atol=1e-8, rtol=0)
        assert_close(got.boxes[layer], _rows(wanted.boxes[layer], order), atol=1e-8, rtol=0)
        order = order.gather(1, calls[layer].order)
        moved += (order != torch.arange(ONE2ONE + ONE2MANY)).sum().item()
    assert moved > 0


def test_evaluation_equals_the_one_to_one_slice_of_training():
    model = TinyRankDetr().randomise(generator())
    feats, masks = features(generator(1))
    training, evaluation = model.train()(feats, masks), model.eval()(feats, masks)
    assert training.group_sizes == (ONE2ONE, ONE2MANY)
    assert evaluation.group_sizes == (ONE2ONE,)
    assert_close(evaluation.logits, training.logits[:, :, :ONE2ONE], atol=1e-5, rtol=0)
    assert_close(evaluation.boxes, training.boxes[:, :, :ONE2ONE], atol=1e-5, rtol=0)


@pytest.mark.parametrize("designs", [{}, {"rank_layer": False}])
def test_queries_are_sorted_by_the_layer_before(designs):
    model = TinyRankDetr(**designs).randomise(generator())
    if not designs:
        for fuse in model.transformer.decoder.post_racq_trans:  # lets the content through as it is
            fuse.weight.data = torch.eye(CHANNELS, 2 * CHANNELS)
            fuse.bias.data.zero_()
    output, calls = traced(model, *features(generator(1)))
    moved = 0
    for layer, (call, following) in enumerate(itertools.pairwise(calls)):
        scores = model.head.cls_branches[layer](call.state).sigmoid().amax(-1).gather(1, call.order)
        for part in (scores[:, :ONE2ONE], scores[:, ONE2ONE:]):
            assert (part.diff(dim=1) <= 0).all()
        assert (call.order[:, :ONE2ONE] < ONE2ONE).all()
        assert (call.order[:, ONE2ONE:] >= ONE2ONE).all()
        moved += (call.order != torch.arange(ONE2ONE + ONE2MANY)).sum().item()
        # Content, position and reference of the next layer are this layer's, all in the same new order.
        refined = (
            model.head.reg_branches[layer](call.state) + inverse_sigmoid(call.reference, REFERENCE_EPS)
        ).sigmoid()
        assert_close(following.reference, _rows(refined, call.order), atol=1e-6, rtol=0)
        assert_close(following.content, _rows(call.state, call.order), atol=1e-6, rtol=0)
        assert torch.equal(following.query_pos, _rows(call.query_pos, call.order))
        assert_close(output.logits[layer], model.head.add_rank_bias(layer, model.head.cls_branches[layer](call.state)))
    assert moved > 0


def test_rank_fusion_is_a_linear_map_of_joined_content():
    """The equation of the paper, which the decoder computes in two halves."""
    decoder = TinyRankDetr().randomise(generator()).transformer.decoder
    x = torch.randn(2, 25, CHANNELS, generator=generator(1))
    ranked = decoder.pre_racq_trans[1](decoder.rank_aware_content_query[1].weight[:25]).expand(2, -1, -1)
    assert_close(decoder._fuse_rank(1, x), decoder.post_racq_trans[1](torch.cat([x, ranked], -1)), atol=1e-5, rtol=1e-5)


def test_rank_bias_changes_only_its_row():
    model = TinyRankDetr().randomise(generator())
    feats, masks = features(generator(1))
    before, calls_before = traced(model, feats, masks)
    weight = torch.randn(before.logits[1].shape, generator=generator(2))
    (before.logits[1] * weight).sum().backward()
    table = model.head.rank_adaptive_classhead_emb[1].weight
    assert_close(table.grad, weight.sum(0))

    shift = torch.linspace(-1, 1, CLASSES)
    with torch.no_grad():
        table[7] += shift
    after, calls_after = traced(model, feats, masks)
    expected = before.logits.detach().clone()
    expected[1, :, 7] += shift
    assert_close(after.logits, expected)
    assert torch.equal(after.boxes, before.boxes)
    for old, new in zip(calls_before, calls_after):
        assert torch.equal(old.content, new.content)


@pytest.mark.parametrize("twice", [True, False])
def test_look_forward_twice(twice):
    model = TinyRankDetr(look_forward_twice=twice).randomise(generator())
    output = model(*features(generator(1)))
    output.boxes[1].square().sum().backward()
    gradient = model.head.reg_branches[0][-1].weight.grad
    assert (gradient is not None and gradient.abs().sum() > 0) == twice


def test_initial_values():
    model = TinyRankDetr()
    for branch in model.head.cls_branches:
        assert_close(branch.bias.data, torch.full((CLASSES,), -4.59512))
        assert torch.equal(branch.weight, model.head.cls_branches[0].weight)
    bound = math.sqrt(6 / (ONE2ONE + ONE2MANY + CHANNELS))
    for table in model.transformer.decoder.rank_aware_content_query:
        assert 0.9 * bound < table.weight.abs().max() <= bound
    for table in model.head.rank_adaptive_classhead_emb:
        assert not table.weight.any()
    output, calls = traced(model, *features(generator()))
    proposals = inverse_sigmoid(calls[0].reference, REFERENCE_EPS).sigmoid()
    # Layers sort the queries, so boxes are compared as sets.
    for boxes in output.boxes:
        assert_close(boxes.sort(1).values, proposals.sort(1).values, atol=1e-6, rtol=0)


def test_padding_does_not_change_an_image():
    """An image alone and the same image beside a larger one give the same boxes and scores."""
    model = TinyRankDetr().randomise(generator()).double().eval()
    feats, masks = features(generator(1), batch=1, size=(16, 16))
    feats = [feat.double() for feat in feats]
    alone = model(feats, masks)
    padded, padded_masks = [], []
    for feat in feats:
        height, width = feat.shape[-2:]
        canvas = torch.randn(2, CHANNELS, 2 * height, 3 * width, generator=generator(2), dtype=torch.float64)
        canvas[0, :, :height, :width] = feat[0]
        mask = torch.zeros(2, 2 * height, 3 * width, dtype=torch.bool)
        mask[0, height:], mask[0, :, width:] = True, True
        padded.append(canvas)
        padded_masks.append(mask)
    together = model(padded, padded_masks)
    assert_close(together.logits[:, :1], alone.logits, atol=1e-5, rtol=0)
    assert_close(together.boxes[:, :1], alone.boxes, atol=1e-6, rtol=0)


def test_fewer_tokens_than_queries():
    model = TinyRankDetr().randomise(generator())
    feats, masks = features(generator(), size=(4, 5))  # 20 + 6 + 2 + 1 tokens
    output = model(feats, masks)
    assert output.group_sizes == (20, 9)
    assert output.logits.isfinite().all()
    feats, masks = features(generator(), size=(2, 3))  # 6 + 2 + 1 + 1 tokens
    assert model(feats, masks).group_sizes == (10, 0)


def test_without_mixed_selection_content_comes_from_proposals():
    model = TinyRankDetr(mixed_selection=False).randomise(generator())
    assert model.transformer.query_embedding is None
    output = model(*features(generator(1)))
    output.logits[0].sum().backward()
    assert model.transformer.pos_trans_fc.weight.grad[CHANNELS:].abs().sum() > 0


def test_checkpointing_gives_the_same_gradients():
    plain = TinyRankDetr().randomise(generator())
    recomputing = TinyRankDetr(checkpointing=True)
    recomputing.load_state_dict(plain.state_dict())
    for model in (plain, recomputing):
        output = model(*features(generator(1)))
        (output.logits.sum() + output.boxes.square().sum()).backward()
    for (name, one), other in zip(plain.named_parameters(), recomputing.parameters()):
        if one.grad is not None:
            assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_groups_do_not_attend_to_each_other():
    mask = group_attention_mask((2, 3), torch.device("cpu"))
    assert mask.tolist() == [[(row < 2) != (column < 2) for column in range(5)] for row in range(5)]
    assert group_attention_mask((4,), torch.device("cpu")) is None


def test_full_size_parameter_counts():
    """28 624 972 parameters beside the R50 backbone, 4 153 600 of them for the rank designs."""
    with torch.device("meta"):
        parts = [RankDetrTransformer(), RankDetrHead(80)]
        plain = [RankDetrTransformer(query_rank_layer=False), RankDetrHead(80, rank_adaptive_classhead=False)]
    count = [sum(p.numel() for module in group for p in module.parameters()) for group in (parts, plain)]
    neck = sum(c * 256 + 3 * 256 for c in (512, 1024, 2048)) + 9 * 2048 * 256 + 3 * 256
    assert count[0] + neck == 28_624_972
    assert count[0] - count[1] == 4_153_600


def _rows(x, index):
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
