"""The head that looks from above: sizes, batches, frames, matching, losses; and it learns."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from perception.geometry import bev, boxes3d, se3
from projects.bevformer_v2.coder import best_boxes, decode, encode
from projects.bevformer_v2.fusion import fill_missing
from projects.bevformer_v2.head import BEVFormerHead, HeadOutput
from projects.bevformer_v2.losses import BEVCriterion, Target3D
from projects.bevformer_v2.points import Rig
from projects.bevformer_v2.proposals import Proposals, choose_proposals
from projects.bevformer_v2.transformer import BEVTransformer
from tests.projects.bevformer_v2.tiny import RANGE, feature_maps, head, objects, rig, shaken

# ---------------------------------------------------------------------------------------------------------------- sizes


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("frames", "millions", "fusion"),
    [((0,), 26.02, 0), ((-1, 0), 40.32, 14.29), (tuple(range(-7, 1)), 56.83, 30.81)],
    ids=["t1", "t2", "t8"],
)
def test_parameter_counts(frames, millions, fusion):
    with torch.device("meta"):
        module = BEVFormerHead(num_groups=11, transformer=dict(frames=frames))
    assert count(module) / 1e6 == pytest.approx(millions, abs=5e-3)
    assert count(module.transformer.encoder) / 1e6 == pytest.approx(4.94, abs=5e-3)
    assert count(module.transformer.decoder) / 1e6 == pytest.approx(4.10, abs=5e-3)
    assert count(module.bev_embedding) == 200 * 200 * 256
    assert count(module.query_embedding) / 1e6 == pytest.approx(5.07, abs=5e-3)
    assert (count(module.transformer.fusion) if fusion else 0) / 1e6 == pytest.approx(fusion, abs=5e-3)


def test_initialisation():
    module = head()
    transformer = module.transformer
    assert_close(module.cls_branches[0][-1].bias.data, torch.full((10,), -4.5951), atol=1e-4, rtol=0)
    for embeds, bound in ((transformer.level_embeds, (6 / 34) ** 0.5), (transformer.cams_embeds, (6 / 38) ** 0.5)):
        assert bound / 2 < float(embeds.detach().abs().max()) <= bound
    assert not transformer.reference_points.bias.any()
    assert not transformer.encoder.layers[0].self_attn.attention_weights.weight.any()
    assert float(module.bev_embedding.weight.detach().std()) == pytest.approx(1, abs=0.05)


# --------------------------------------------------------------------------------------------------- batches and groups


def test_batch_equals_single_samples():
    module = shaken(head()).eval()
    feats = [torch.cat(pair) for pair in zip(feature_maps(seed=0), feature_maps(seed=1))]
    whole = module(feats, rig(0.0, 0.3))
    for b, turn in enumerate((0.0, 0.3)):
        single = module([feat[b : b + 1] for feat in feats], rig(turn))
        assert_close(whole.logits[:, b : b + 1], single.logits, atol=1e-5, rtol=1e-5)
        assert_close(whole.codes[:, b : b + 1], single.codes, atol=1e-4, rtol=1e-5)


def test_first_group_of_training_is_the_one_of_evaluation():
    module = shaken(head())
    trained = module.train()(feature_maps(), rig())
    evaluated = module.eval()(feature_maps(), rig())
    assert trained.logits.shape == (2, 1, 24, 10)
    assert evaluated.logits.shape == (2, 1, 12, 10)
    assert trained.logits[:, :, :12].equal(evaluated.logits)
    assert trained.codes[:, :, :12].equal(evaluated.codes)


def test_recomputed_layers_have_the_same_gradients():
    """With dropout, which is drawn alike in both passes."""
    found = []
    for checkpointing in (False, True):
        module = shaken(head(transformer=dict(checkpointing=checkpointing, dropout=0.1))).train()
        kept: list[int] = []
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            output = module(feature_maps(), rig())
        (output.codes.sum() + output.logits.sum()).backward()
        found.append((sum(kept), [parameter.grad for parameter in module.parameters()]))
    assert found[1][0] < 0.7 * found[0][0]
    for plain, recomputed in zip(found[0][1], found[1][1]):
        assert_close(recomputed, plain)


def test_attentions_of_different_numbers_of_heads():
    module = shaken(head(transformer=dict(num_heads=(2, 4, 8, 1))))
    encoder, decoder = module.transformer.encoder.layers[0], module.transformer.decoder.layers[1]
    attentions = (
        encoder.self_attn,
        encoder.cross_attn.deformable_attention,
        decoder.self_attn.attn,
        decoder.cross_attn,
    )
    assert [attention.num_heads for attention in attentions] == [2, 4, 8, 1]
    assert module(feature_maps(), rig()).codes.isfinite().all()
    with pytest.raises(ValueError, match="one number or four, got"):
        head(transformer=dict(num_heads=(4, 8)))


def test_branches_of_other_depth():
    module = shaken(head(num_branch_layers=1))
    assert [len(branch) for branch in (module.cls_branches[0], module.reg_branches[1])] == [4, 3]
    output = module(feature_maps(), rig())
    assert output.logits.shape == (2, 1, 24, 10)
    assert output.codes.shape == (2, 1, 24, 10)


def test_references_are_refined_without_gradient():
    """A layer's boxes begin with the references of the layer before, which learn through its own boxes alone."""
    module = shaken(head(num_groups=1))
    output = module(feature_maps(), rig())
    output.codes[1].sum().backward(retain_graph=True)
    assert not module.reg_branches[0][-1].weight.grad.any()
    output.codes[0].sum().backward()
    assert module.reg_branches[0][-1].weight.grad.any()
    assert module.transformer.reference_points.weight.grad.any()
    low, high = torch.tensor(RANGE).view(2, 3)
    assert (output.codes[..., [0, 1, 4]] > low).all()
    assert (output.codes[..., [0, 1, 4]] < high).all()


# ------------------------------------------------------------------------------------------------- frames, augmentation


def test_missing_frames_take_the_nearest_towards_now():
    views = [None, torch.full((2, 4, 3), -1.0), torch.zeros(2, 4, 3), None, torch.full((2, 4, 3), 2.0)]
    filled = fill_missing(views, 2)
    assert [float(view.mean()) for view in filled] == [-1, -1, 0, 0, 2]
    present = torch.tensor([[False, True, True, False, True], [False, False, True, False, False]])
    now = torch.zeros(2, 4, 3, requires_grad=True)
    filled = fill_missing([None, views[1], now, None, views[4]], 2, present)
    assert [float(view[1].detach().mean()) for view in filled] == [0, 0, 0, 0, 0]
    assert [float(view[0].detach().mean()) for view in filled] == [-1, -1, 0, 0, 2]
    assert [view.requires_grad for view in filled] == [False, False, True, False, False]


@pytest.mark.parametrize("frames", [(-1, 0), (-2, -1, 0, 1)], ids=["past", "both directions"])
def test_frames_are_fused_in_their_order(frames):
    module = shaken(head(transformer=dict(frames=frames, fusion_channels=48))).eval()
    views = [module.encode(feature_maps(seed=t), rig()) if t else None for t in frames]
    output = module(feature_maps(seed=0), rig(), views)
    now = frames.index(0)
    joined = torch.cat([output.bev if t == now else view for t, view in enumerate(views)], -1)
    fusion = module.transformer.fusion
    maps = fusion.layers(joined.mT.reshape(1, -1, 16, 16))
    expected = fusion.layer_norm(maps.flatten(2).mT)
    assert_close(module.transformer.fuse(output.bev, views), expected)
    with pytest.raises(ValueError, match="need"):
        module(feature_maps(), rig(), views[:1])


def test_fusion_of_other_depth_and_width():
    """As the authors' default has it, the width of all frames: the first block needs no convolution of its own."""
    settings = dict(frames=(-1, 0), fusion_channels=None, num_fusion_blocks=2)
    fusion = head(transformer=settings).transformer.fusion
    assert [tuple(block.conv1.weight.shape[:2]) for block in fusion.layers] == [(64, 64), (64, 64)]
    assert fusion.layers[0].downsample is None
    assert fusion.layer_norm[0].weight.shape == (32, 64)


def test_bev_warp_moves_features_as_the_ground_truth():
    inverse = torch.linalg.inv(bev.augmentation_matrix(0.3, 1.04, True, False))
    module = shaken(head()).eval()
    plain = module.encode(feature_maps(), rig()).mT.unflatten(-1, (16, 16))
    warped = module.encode(feature_maps(), rig(), inverse[None].float()).mT.unflatten(-1, (16, 16))
    # The authors' own formula, in shares of the range from -1 to 1.
    steps = (torch.arange(16) + 0.5) / 16 * 2 - 1
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1) @ inverse[:2, :2].float().mT
    assert_close(warped, F.grid_sample(plain, grid[None], align_corners=False), atol=1e-4, rtol=1e-4)


def test_bev_warp_of_a_known_function():
    grid = bev.BevGrid(RANGE[:2], RANGE[3:5], 200, 200)
    matrix = bev.augmentation_matrix(-0.35, 0.96, False, True)

    def function(points):
        return (points[..., 0] / 15).sin() * (points[..., 1] / 20).cos()

    centres = grid.centres()
    inverse = torch.linalg.inv(matrix)[:2, :2].float()
    known = function(centres).view(1, 1, 200, 200)
    warped = bev.warp(known, inverse[None], grid).flatten()
    inside = (centres @ inverse.T).abs().amax(-1) < 50
    assert_close(warped[inside], function(centres @ inverse.T)[inside], atol=1e-2, rtol=0)


def test_frames_of_a_moving_vehicle_agree():
    """With no motion between frames, another frame's view is bit for bit its own."""
    module = shaken(head()).eval()
    own = module.encode(feature_maps(), rig())
    still = Rig(rig().lidar2img @ se3.invert(torch.eye(4)), rig().image_size)
    assert module.encode(feature_maps(), still).equal(own)


# ---------------------------------------------------------------------------------------------------------------- coder


def test_code_and_back():
    boxes = objects(50).boxes
    boxes[:, 6] += 7
    found = decode(encode(boxes))
    assert_close(boxes3d.wrap_angle(found[:, 6]), boxes3d.wrap_angle(boxes[:, 6]), atol=1e-5, rtol=0)
    found[:, 6] = boxes[:, 6]
    assert_close(found, boxes, atol=1e-5, rtol=1e-5)


def test_best_boxes():
    logits = torch.full((4, 3), -5.0)
    logits[2, 1], logits[0, 2], logits[2, 0], logits[1, 0] = 3.0, 2.0, 1.0, 4.0
    boxes = objects(4).boxes
    boxes[1, 0] = 62.0  # beyond the range of centres
    found = best_boxes(logits, encode(boxes), (-61.2, -61.2, -10, 61.2, 61.2, 10), 4)
    assert found.labels.tolist() == [1, 2, 0]
    assert_close(found.boxes[:, :6], boxes[[2, 0, 2], :6], atol=1e-5, rtol=1e-5)
    assert_close(found.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())
    everything = best_boxes(logits, encode(objects(4).boxes), (-61.2, -61.2, -10, 61.2, 61.2, 10))
    assert len(everything.scores) == 12


# -------------------------------------------------------------------------------------------------- matching and losses


def predictions(num_layers=2, batch=3, groups=2, queries=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (num_layers, batch, groups * queries)
    codes = torch.randn(*size, 10, generator=generator) * torch.tensor([20, 20, 1, 1, 1, 1, 1, 1, 3, 3.0])
    return HeadOutput(torch.randn(*size, 10, generator=generator), codes, groups, torch.zeros(0))


def test_losses_by_plain_loops():
    output, targets = predictions(), [objects(4, 1), objects(0, 2), objects(2, 3)]
    weights = torch.tensor([1.0] * 8 + [0.2] * 2)
    found = BEVCriterion()(output, targets, weights)
    positives = 6
    for layer, name in ((1, ""), (0, "d0.")):
        focal, boxes = torch.tensor(0.0), torch.tensor(0.0)
        for group, (b, target) in itertools.product(range(2), enumerate(targets)):
            rows = slice(7 * group, 7 * group + 7)
            logits, codes, wanted = output.logits[layer, b, rows], output.codes[layer, b, rows], encode(target.boxes)
            cost = torch.zeros(7, len(wanted))
            for q, g in itertools.product(range(7), range(len(wanted))):
                p = logits[q, target.labels[g]].sigmoid()
                cost[q, g] = 2 * (
                    0.25 * (1 - p) ** 2 * -(p + 1e-12).log() - 0.75 * p**2 * -(1 - p + 1e-12).log()
                ) + 0.75 * F.smooth_l1_loss(codes[q, :8], wanted[g, :8], reduction="sum")
            one_hot = torch.zeros(7, 10)
            for q, g in zip(*linear_sum_assignment(cost.numpy())):
                one_hot[q, target.labels[g]] = 1
                error = F.smooth_l1_loss(codes[q], wanted[g], reduction="none")
                boxes = boxes + 0.75 * (error * weights).sum() / positives
            p = logits.sigmoid()
            bce = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
            hard = one_hot * 0.25 * (1 - p) ** 2 + (1 - one_hot) * 0.75 * p**2
            focal = focal + 2 * (hard * bce).sum() / positives
        assert_close(found[f"{name}loss_cls"], focal / 2, rtol=1e-5, atol=1e-6)
        assert_close(found[f"{name}loss_bbox"], boxes / 2, rtol=1e-5, atol=1e-6)
    assert set(found) == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}


def test_sure_classes_count_in_full():
    """A probability that rounds to 1 still has its loss, which grows as the logit does."""
    output = predictions(1, 1, 1)
    output.logits[:] = -30.0
    output.logits[0, 0, 0, 0] = 40.0
    losses = BEVCriterion()(output, [objects(0)], torch.ones(10))
    assert float(losses["loss_cls"]) == pytest.approx(2 * 0.75 * 40)


def test_double_precision_is_kept():
    module = shaken(head()).double().eval()
    output = module([feat.double() for feat in feature_maps()], rig())
    assert output.codes.dtype == torch.float64
    losses = BEVCriterion()(output, [objects(3)], module.code_weights)
    assert all(loss.dtype == torch.float64 for loss in losses.values())


def test_losses_of_scenes_without_objects():
    output = predictions()
    output.codes.requires_grad_()
    losses = BEVCriterion()(output, [objects(0)] * 3, torch.ones(10))
    assert not losses["loss_bbox"].any()
    losses["loss_bbox"].backward()
    assert not output.codes.grad.any()


def test_an_object_without_a_size_teaches_its_class_alone():
    target = objects(2)
    target.boxes[1, 3] = 0
    output = predictions(1, 1, 1)
    losses = BEVCriterion()(output, [target], torch.ones(10))
    alone = BEVCriterion()(output, [Target3D(target.labels[:1], target.boxes[:1])], torch.ones(10))
    assert all(loss.isfinite() for loss in losses.values())
    assert float(losses["loss_bbox"]) == pytest.approx(float(alone["loss_bbox"]) / 2, rel=1e-5)
    assert float(losses["loss_cls"]) != float(alone["loss_cls"])


def test_divergence_is_said():
    output = predictions()
    output.logits[0, 1, 3, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        BEVCriterion()(output, [objects(2)] * 3, torch.ones(10))


# ----------------------------------------------------------------------------------------------------------- two stages


def test_one_stage_is_untouched_by_the_two_stage_variant():
    plain, two = head(seed=3), head(seed=3, num_proposals=4)
    own = {k: v for k, v in two.state_dict().items() if not k.startswith("proposal_queries.")}
    assert all(value.equal(own[key]) for key, value in plain.state_dict().items())
    assert set(own) == set(plain.state_dict())
    two.proposal_queries = None
    for mode in (True, False):
        ours, theirs = (module.train(mode)(feature_maps(), rig()) for module in (plain, two))
        assert ours.logits.equal(theirs.logits)
        assert ours.codes.equal(theirs.codes)


def test_proposals_become_queries_of_each_group():
    module = shaken(head(num_proposals=4))
    centers = torch.tensor([[[10.0, 20, 0], [-30, 5, -1], [0, 0, 1], [60, -60, 9]]])
    output = module(feature_maps(), rig(), proposals=Proposals(centers))
    assert output.logits.shape == (2, 1, 2 * 16, 10)
    content, position, reference = module._object_queries(1, 2, Proposals(centers))
    low, high = torch.tensor(RANGE).view(2, 3)
    for group in range(2):
        rows = slice(16 * group + 12, 16 * group + 15)
        assert_close(reference[0, rows] * (high - low) + low, centers[0, :3], atol=1e-4, rtol=0)
        assert position[0, rows].equal(position[0, 12:15])
        assert content[0, rows].equal(content[0, 12:15])
    assert ((reference > 0) & (reference < 1)).all()
    losses = BEVCriterion()(output, [objects(5)], module.code_weights)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in module.proposal_queries.parameters())
    with pytest.raises(ValueError, match="two-stage"):
        module(feature_maps(), rig())
    with pytest.raises(ValueError, match="one-stage"):
        head()(feature_maps(), rig(), proposals=Proposals(centers))


def test_proposals_without_overlap_come_first():
    boxes = torch.tensor([[0, 0, 0, 4, 2, 1.5, 0], [0.2, 0, 0, 4, 2, 1.5, 0.1], [20, 3, 0, 4, 2, 1.5, 1.0]])
    scores = torch.tensor([0.9, 0.8, 0.1])
    chosen = choose_proposals([boxes, boxes[:0], boxes[2:]], [scores, scores[:0], scores[2:]], 4).centers
    assert chosen[0, :, 0].tolist() == pytest.approx([0, 20, 0.2, 0])  # then the one that was suppressed, then again
    assert not chosen[1].any()
    assert chosen[2, :, 0].tolist() == [20] * 4


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.slow
def test_it_learns_a_scene():
    module, criterion, target = head(num_groups=2), BEVCriterion(), objects(5)
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    history = []
    for _ in range(101):
        losses = criterion(module(feature_maps(), rig()), [target], module.code_weights)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 35)
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[0] > 25
    assert history[25] < 12
    assert history[100] < 1
    found = module.eval().detect(module(feature_maps(), rig()))[0]
    assert found.labels[:5].sort()[0].tolist() == [0, 1, 2, 3, 4]
    distance = (found.boxes[:5, :2] - target.boxes[found.labels[:5], :2]).norm(dim=1)
    assert float(distance.max()) < 0.5


def test_half_precision_around_changes_little():
    module = shaken(head()).eval()
    exact = module(feature_maps(), rig())
    with torch.autocast("cpu", torch.bfloat16):
        rough = module(feature_maps(), rig())
    assert rough.codes.dtype == torch.float32
    assert rough.bev.isfinite().all()
    error = (rough.codes[..., :2] - exact.codes[..., :2]).abs()
    assert float(error.mean()) < 1.0  # metres, of 100


def test_what_does_not_fit_is_refused():
    module = head()
    assert isinstance(module.transformer, BEVTransformer)
    with pytest.raises(ValueError, match="takes maps of 2 levels, got 1"):
        module(feature_maps()[:1], rig())
    with pytest.raises(ValueError, match="knows 6 cameras, but there are 5"):
        module([feat[:, :5] for feat in feature_maps()], rig())
    with pytest.raises(ValueError, match=r"1 samples and 6 cameras need .* got \(1, 5, 4, 4\)"):
        module(feature_maps(), Rig(rig().lidar2img[:, :5], rig().image_size))
    with pytest.raises(ValueError, match=r"1 samples and 6 cameras need .* got \(2, 6, 4, 4\)"):
        module(feature_maps(), rig(0.0, 0.3))
    for frames in ((-2, -1), (0, -1), (-1, -1, 0)):
        with pytest.raises(ValueError, match="frames must be different offsets in ascending order"):
            head(transformer=dict(frames=frames))
    with pytest.raises(ValueError, match="six numbers, got"):
        BEVTransformer(module.transformer.grid, RANGE[:4])
    with pytest.raises(ValueError, match="each of a code's 10, got 3"):
        head(code_weights=(1.0, 1.0, 0.2))
    with pytest.raises(ValueError, match="predictions for 3 samples, but targets of 2"):
        BEVCriterion()(predictions(), [objects(1)] * 2, torch.ones(10))
