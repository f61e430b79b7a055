"""Projection and attentions: numbers recorded from the authors' code, and the laws that they obey."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from perception.geometry import cameras, se3
from perception.geometry.bev import BevGrid
from perception.layers.deformable_attention import DeformableSampling
from projects.bevformer_v2.attention import GroupSelfAttention, SpatialCrossAttention, TemporalSelfAttention
from projects.bevformer_v2.encoder import BEVFormerEncoder
from projects.bevformer_v2.points import Rig, pillar_points, project_pillars, visible_queries
from tests.projects.bevformer_v2.tiny import HEIGHT, RANGE, WIDTH, rig, rig_poses, shaken

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "bevformer_v2"
RECORDED = torch.load(FOLDER / "attention.pt", weights_only=True)
GRID = BevGrid(RANGE[:2], RANGE[3:5], 20, 20)
SHAPES = torch.tensor([[8, 12], [4, 6]])

# ----------------------------------------------------------------------------------------------------------- projection


def recorded_rig():
    return Rig(RECORDED["point_sampling"]["lidar2img"][None], (HEIGHT, WIDTH))


def test_recorded_projection():
    case = RECORDED["point_sampling"]
    places, mask = project_pillars(pillar_points(GRID, 4, 8.0), RANGE, recorded_rig())
    assert mask.equal(case["mask"])
    assert_close(places[mask][::7], case["places"], atol=1e-5, rtol=0)


def test_pillars():
    points = pillar_points(GRID, 4, 8.0)
    metres = points * 8 - 5
    assert_close(metres[0, :, 2], torch.tensor([-4.5, -13 / 6, 1 / 6, 2.5]))
    assert_close(points[21, 0, :2], torch.tensor([0.075, 0.075]))  # row by row: the second cell of the second row


def test_share_of_visible_points():
    _, mask = project_pillars(pillar_points(GRID, 4, 8.0), RANGE, recorded_rig())
    assert float(mask.float().mean()) == pytest.approx(0.225, abs=5e-4)
    assert float(mask.any(-1).sum(1).float().mean()) == pytest.approx(1.36, abs=5e-3)


def test_points_land_on_their_pixels():
    """Points drawn through a camera's own pixels and depths come back there."""
    intrinsics, poses = rig_poses()
    pixels = torch.rand(6, 50, 2, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])
    seen = cameras.unproject(pixels, 5 + 30 * torch.rand(6, 50, dtype=torch.float64), intrinsics.double())
    points = se3.transform_points(se3.invert(poses.double()), seen)
    low, high = (torch.tensor(RANGE[i : i + 3], dtype=torch.float64) for i in (0, 3))
    shares = (points - low) / (high - low)
    places, mask = project_pillars(shares.flatten(0, 1)[:, None].float(), RANGE, rig())
    for camera in range(6):
        mine = slice(50 * camera, 50 * camera + 50)
        assert mask[0, camera, mine].all()
        found = places[0, camera, mine, 0] * torch.tensor([WIDTH, HEIGHT])
        assert_close(found, pixels[camera].float(), atol=1e-4, rtol=0)


def test_turning_points_and_rig_together_changes_nothing():
    points = pillar_points(BevGrid((-1, -1), (1, 1), 6, 6), 4, 8.0)
    metres = points * torch.tensor([40.0, 40, 8]) + torch.tensor([-20.0, -20, -5])
    turn = se3.compose(se3.rotation_about_z(torch.tensor(0.7)), torch.zeros(3))
    turned = se3.transform_points(turn, metres)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    matrices = rig().lidar2img
    before = project_pillars((metres - low) / (high - low), RANGE, Rig(matrices, (HEIGHT, WIDTH)))
    after = project_pillars((turned - low) / (high - low), RANGE, Rig(matrices @ se3.invert(turn), (HEIGHT, WIDTH)))
    assert before[1].equal(after[1])
    assert_close(before[0][before[1]], after[0][after[1]], atol=1e-5, rtol=0)


def test_ego_motion_enters_through_the_matrices():
    """Another frame's points p seen by its cameras are the current frame's M p seen through lidar2img M^-1."""
    points = pillar_points(GRID, 4, 8.0)
    motion = se3.compose(se3.rotation_about_z(torch.tensor(0.05)), torch.tensor([0.3, -4.0, 0.1])).double()
    low, high = (torch.tensor(RANGE[i : i + 3]) for i in (0, 3))
    moved = se3.transform_points(motion, (points * (high - low) + low).double())
    matrices = rig().lidar2img.double()
    own, own_mask = project_pillars(points, RANGE, Rig(matrices, (HEIGHT, WIDTH)))
    current = Rig(matrices @ se3.invert(motion), (HEIGHT, WIDTH))
    seen, seen_mask = project_pillars(((moved - low) / (high - low)).float(), RANGE, current)
    both = own_mask & seen_mask
    assert int((own_mask ^ seen_mask).sum()) <= 2  # on the border of an image
    size = torch.tensor([WIDTH, HEIGHT])
    assert_close(own[both] * size, seen[both] * size, atol=1e-3, rtol=1e-5)
    same, _ = project_pillars(points, RANGE, Rig(matrices @ se3.invert(torch.eye(4).double()), (HEIGHT, WIDTH)))
    assert same.equal(own)


def test_projection_ignores_autocast():
    points, cams = pillar_points(GRID, 4, 8.0), rig()
    expected = project_pillars(points, RANGE, cams)
    with torch.autocast("cpu", torch.bfloat16):
        found = project_pillars(points, RANGE, cams)
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])


def test_own_size_of_a_padded_sample():
    points = pillar_points(GRID, 4, 8.0)
    whole, mask = project_pillars(points, RANGE, rig())
    narrow = Rig(rig().lidar2img, (HEIGHT, WIDTH), torch.tensor([[HEIGHT, WIDTH // 2]]))
    places, inside = project_pillars(points, RANGE, narrow)
    assert places.equal(whole)
    assert inside.equal(mask & (whole[..., 0] < 0.5))


# ---------------------------------------------------------------------------------------------- spatial cross-attention


def recorded_sca():
    sca = SpatialCrossAttention(32, 4, 2, 8).eval()
    inner = torch.load(FOLDER / "msda3d.pt", weights_only=True)["state_dict"]
    weights = {f"deformable_attention.{key}": value for key, value in inner.items()}
    sca.load_state_dict(weights | RECORDED["sca"]["output_proj"])
    return sca


def test_recorded_spatial_cross_attention():
    """Of queries that no other camera than the first two sees, or none at all."""
    case = RECORDED["sca"]
    places, mask = project_pillars(pillar_points(GRID, 4, 8.0), RANGE, recorded_rig())
    visible = visible_queries(places[:, :2, case["rows"]], mask[:, :2, case["rows"]])
    query = case["query"].clone().requires_grad_()
    out = recorded_sca()(query, case["tokens"], visible, case["spatial_shapes"])
    assert_close(out, case["out"], atol=1e-5, rtol=0)
    (out * case["grad_out"]).sum().backward()
    assert_close(query.grad, case["grad_query"], atol=1e-5, rtol=1e-4)


def padded_attention(sca, query, tokens, places, mask):
    """The release's way for one sample: the queries of every camera in a table as long as the longest list."""
    hits = mask[0].any(-1)  # cameras, queries
    longest = int(hits.sum(1).max())
    rows = [hit.nonzero()[:, 0] for hit in hits]
    queries = query.new_zeros(len(hits), longest, query.shape[-1])
    references = places.new_zeros(len(hits), longest, *places.shape[-2:])
    for camera, mine in enumerate(rows):
        queries[camera, : len(mine)] = query[0, mine]
        references[camera, : len(mine)] = places[0, camera, mine]
    repeated = references.repeat(1, 1, 2, 1)[:, :, None]  # point p from pillar point p mod 4
    sampled = sca.deformable_attention(queries, None, tokens[0], repeated, SHAPES)
    slots = torch.zeros_like(query[0])
    for camera, mine in enumerate(rows):
        slots[mine] += sampled[camera, : len(mine)]
    mean = slots / hits.sum(0).clamp(min=1)[:, None]
    return sca.output_proj(mean)[None] + query


def sample(turn, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 400, 32, generator=generator)
    tokens = torch.randn(1, 6, 120, 32, generator=generator)
    return query, tokens, *project_pillars(pillar_points(GRID, 4, 8.0), RANGE, rig(turn))


def test_ragged_gather_equals_padded_rebatching():
    sca = shaken(SpatialCrossAttention(32, 4, 2, 8, dropout=0.0))
    query, tokens, places, mask = sample(0.0, 0)
    leaves = [(query.clone().requires_grad_(), tokens.clone().requires_grad_()) for _ in range(2)]
    ragged = sca(*leaves[0], visible_queries(places, mask), SHAPES)
    padded = padded_attention(sca, *leaves[1], places, mask)
    assert_close(ragged, padded, atol=1e-5, rtol=1e-5)
    for out in (ragged, padded):
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    for ours, theirs in zip(*leaves):
        assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_samples_of_a_batch_keep_their_own_cameras():
    sca = shaken(SpatialCrossAttention(32, 4, 2, 8, dropout=0.0))
    samples = [sample(0.0, 0), sample(0.4, 1)]
    singles = [sca(query, tokens, visible_queries(places, mask), SHAPES) for query, tokens, places, mask in samples]
    query, tokens, places, mask = (torch.cat(parts) for parts in zip(*samples))
    assert_close(sca(query, tokens, visible_queries(places, mask), SHAPES), torch.cat(singles), atol=1e-5, rtol=1e-5)


def test_order_of_cameras_does_not_matter():
    sca = shaken(SpatialCrossAttention(32, 4, 2, 8, dropout=0.0))
    query, tokens, places, mask = sample(0.0, 0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = sca(query, tokens, visible_queries(places, mask), SHAPES)
    found = sca(query, tokens[:, order], visible_queries(places[:, order], mask[:, order]), SHAPES)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_query_that_no_camera_sees():
    sca = shaken(SpatialCrossAttention(32, 4, 2, 8, dropout=0.0))
    query, tokens, places, mask = sample(0.0, 0)
    mask[:, :, :30] = False
    out = sca(query, tokens, visible_queries(places, mask), SHAPES)
    assert_close(out[:, :30], query[:, :30] + sca.output_proj.bias)
    nothing = sca(query, tokens, visible_queries(places, torch.zeros_like(mask)), SHAPES)
    assert_close(nothing, query + sca.output_proj.bias)
    nothing.sum().backward()  # all weights stay part of the graph
    assert all(parameter.grad is not None for parameter in sca.parameters())


def test_constant_values_are_returned_inside_of_the_maps():
    sampling = DeformableSampling(32, 4, 2, 8)
    torch.nn.init.eye_(sampling.value_proj.weight)
    torch.nn.init.zeros_(sampling.sampling_offsets.bias)
    constant = torch.randn(32)
    places = (0.2 + 0.6 * torch.rand(1, 9, 1, 8, 2)).float()
    out = sampling(torch.randn(1, 9, 32), None, constant.expand(1, 120, 32), places, SHAPES)
    assert_close(out, constant.expand(1, 9, 32))


# ----------------------------------------------------------------------------------------- temporal and group attention


def test_recorded_temporal_self_attention():
    case = RECORDED["tsa"]
    module = TemporalSelfAttention(32, 4, 4).eval()
    assert_close(module.sampling_offsets.bias.data, case["init"])
    module.load_state_dict(case["state_dict"])
    cells, rows = BevGrid((0, 0), (1, 1), 12, 12).places(), case["rows"]
    position = torch.zeros_like(case["query"])
    position[:, rows] = case["query_pos"]
    alone = module(case["query"], position, cells, (12, 12))
    assert_close(alone[:, rows], case["out_no_prev"], atol=1e-5, rtol=0)
    views = torch.stack([case["prev_bev"], case["query"]], 1)
    both = module(case["query"], position, cells, (12, 12), views, case["shift"])
    assert_close(both[:, rows], case["out_with_prev"], atol=1e-5, rtol=0)


def test_the_same_view_twice_is_that_view():
    module = shaken(TemporalSelfAttention(32, 4, 4, dropout=0.0))
    query, position = torch.randn(2, 144, 32), torch.randn(2, 144, 32)
    cells = BevGrid((0, 0), (1, 1), 12, 12).places()
    alone = module(query, position, cells, (12, 12))
    twice = module(query, position, cells, (12, 12), torch.stack([query, query], 1), torch.zeros(2, 2))
    assert_close(alone, twice, atol=1e-5, rtol=1e-5)


def test_earlier_views_of_a_batch_keep_apart():
    """The released code takes the first half of a tensor in which both views alternate."""
    module = shaken(TemporalSelfAttention(32, 4, 4, dropout=0.0))
    query, position, views = torch.randn(2, 144, 32), torch.randn(2, 144, 32), torch.randn(2, 2, 144, 32)
    shift = torch.tensor([[0.1, 0.0], [-0.05, 0.2]])
    cells = BevGrid((0, 0), (1, 1), 12, 12).places()
    whole = module(query, position, cells, (12, 12), views, shift)
    for b in range(2):
        one = slice(b, b + 1)
        alone = module(query[one], position[one], cells, (12, 12), views[one], shift[one])
        assert_close(whole[one], alone, atol=1e-5, rtol=1e-5)


def test_encoder_with_an_earlier_view():
    """All layers see the initial queries beside the earlier view, as the first BEVFormer was trained."""
    layer = dict(embed_dims=32, num_heads=4, num_levels=2, num_temporal_points=4, num_spatial_points=8)
    encoder = shaken(BEVFormerEncoder(2, dict(**layer, feedforward_channels=64, dropout=0.0)))
    query, tokens, places, mask = sample(0.0, 0)
    position, previous = torch.randn(1, 400, 32), torch.randn(1, 400, 32)
    shared = (tokens, visible_queries(places, mask), SHAPES, GRID.places(), (20, 20))
    shift = torch.tensor([[0.02, -0.1]])
    views = torch.stack([previous, query], 1)
    expected = encoder.layers[0](query, position, *shared, views, shift)
    expected = encoder.layers[1](expected, position, *shared, views, shift)
    assert_close(encoder(query, position, *shared, previous, shift), expected)
    assert not torch.allclose(encoder(query, position, *shared), expected)


def test_recorded_group_attention():
    case = RECORDED["group_mha"]
    module = GroupSelfAttention(32, 4)
    module.load_state_dict(case["state_dict"])
    query, position = case["query"].transpose(0, 1), case["query_pos"].transpose(0, 1)
    assert_close(module(query, position, 3).transpose(0, 1), case["train"], atol=1e-5, rtol=0)
    first = module.eval()(query[:, :4], position[:, :4], 1)
    assert_close(first.transpose(0, 1), case["eval_first_group"], atol=1e-5, rtol=0)


def test_initial_offsets_point_all_around():
    offsets = SpatialCrossAttention(32, 8, 2, 8).deformable_attention.sampling_offsets.bias.view(8, 2, 8, 2)
    for number in range(8):
        direction = torch.tensor([math.cos(math.pi / 4 * number), math.sin(math.pi / 4 * number)])
        direction = direction / direction.abs().max()
        assert_close(offsets[number, 1, 2], 3 * direction, atol=1e-5, rtol=0)
