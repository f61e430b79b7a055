"""Inverse mean residual colour against its definition, voxel by voxel, and what it must tell apart."""

import math
from itertools import pairwise

import pytest
import torch

from perception.evaluation.imrc import Box, Views, VoxelMarch, background_images, fit_voxels, imrc

SIZE, FOCAL = 28, 38.0
UNIT = Box(torch.zeros(3), torch.ones(3))
PLAIN = torch.tensor([0.8, 0.3, 0.2])


def look_at_centre(count=14, distance=3.0):
    """Poses (count, 4, 4) with OpenCV axes, evenly around the origin."""
    poses = torch.eye(4).repeat(count, 1, 1)
    for number in range(count):
        z = 1 - (2 * number + 1) / count
        angle = number * math.pi * (3 - math.sqrt(5))
        place = torch.tensor([math.sqrt(1 - z * z) * math.cos(angle), math.sqrt(1 - z * z) * math.sin(angle), z])
        ahead = -place
        right = torch.nn.functional.normalize(torch.linalg.cross(ahead, torch.tensor([0.1, 0.2, 1.0])), dim=0)
        poses[number, :3, :3] = torch.stack([right, torch.linalg.cross(ahead, right), ahead], 1)
        poses[number, :3, 3] = distance * place
    return poses


def intrinsics(size=SIZE, focal=FOCAL):
    return torch.tensor([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])


def picture_of_ball(pose, colour, radius=0.6, size=SIZE, focal=FOCAL):
    """What a camera (4, 4) sees of a ball on white: (size, size, 3)."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    rays = torch.stack([(columns - middle) / focal, (rows - middle) / focal, torch.ones(size, size)], -1)
    rays = torch.nn.functional.normalize(rays, dim=-1) @ pose[:3, :3].T
    origin = pose[:3, 3]
    half = rays @ origin
    root = half.square() - origin.square().sum() + radius**2
    hit = origin + rays * (-half - root.clamp(min=0).sqrt())[..., None]
    return torch.where((root > 0)[..., None], colour(hit), 1.0)


def plain(hit):
    return PLAIN.expand_as(hit)


def textured(hit):
    return 0.5 + 0.35 * torch.sin(4 * hit)


def views_of(colour, poses):
    images = [picture_of_ball(pose, colour) for pose in poses]
    return Views(images, intrinsics().repeat(len(poses), 1, 1), poses)


def ball(radius, sigma=60.0, size=12):
    centres = (torch.arange(size) + 0.5) * 2 / size - 1
    places = torch.stack(torch.meshgrid(centres, centres, centres, indexing="ij"), -1)
    return torch.where(places.norm(dim=-1) <= radius, sigma, 0.0)


def by_definition(volume, radius, views):
    """The score, coefficients and weights in plain numbers, one sample after the other."""
    size = volume.shape
    cells = torch.where(volume > 1e-8, volume, 0).double().tolist()  # what is not occupied holds nothing

    def sigma(place):
        place = [min(max(value, 0.0), count - 1) for value, count in zip(place, size)]
        cell = [min(int(value), count - 2) for value, count in zip(place, size)]
        share = [value - low for value, low in zip(place, cell)]
        total = 0.0
        for i in (0, 1):
            for j in (0, 1):
                for k in (0, 1):
                    weight = math.prod(s if up else 1 - s for s, up in zip(share, (i, j, k)))
                    total += weight * cells[cell[0] + i][cell[1] + j][cell[2] + k]
        return total

    def basis(d):
        x, y, z = d
        c = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
        linear = [0.28209479177387814, -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
        square = [
            c[0] * x * y,
            -c[0] * y * z,
            c[1] * (2 * z * z - x * x - y * y),
            -c[0] * x * z,
            c[2] * (x * x - y * y),
        ]
        return linear + square

    found = {}
    for voxel in (volume > 1e-8).nonzero().tolist():
        world = [(2 * i + 1) * r / n - r for i, r, n in zip(voxel, radius, size)]
        weights, colours, bases = [], [], []
        for image, matrix, pose in zip(views.images, views.intrinsics.double(), views.poses.double()):
            origin = pose[:3, 3].tolist()
            away = [w - o for w, o in zip(world, origin)]
            distance = math.sqrt(sum(a * a for a in away))
            direction = [a / distance for a in away]
            bases.append(basis(direction))
            camera = pose[:3, :3].T @ torch.tensor(away, dtype=torch.float64)
            x, y, z = (matrix @ camera).tolist()
            x, y, height, width = x / z, y / z, *image.shape[:2]
            if not (z > 0.01 and 1 < x < width - 2 and 1 < y < height - 2):
                weights.append(0.0)
                colours.append(torch.zeros(3, dtype=torch.float64))
                continue
            u, v, a, b = int(x), int(y), x - int(x), y - int(y)
            corners = image[v : v + 2, u : u + 2].double()
            mixed = torch.tensor([[1 - b], [b]], dtype=torch.float64) * torch.tensor([1 - a, a], dtype=torch.float64)
            colours.append((corners * mixed[..., None]).sum((0, 1)) - 0.5)
            start = [(o / r * n + n - 1) / 2 for o, r, n in zip(origin, radius, size)]
            step = [0.5 / r * n * d for d, r, n in zip(direction, radius, size)]
            length = 1 / math.sqrt(sum(s * s for s in step))
            step = [s * length for s in step]
            entry = max(0.0, *(min((-0.5 - o) / s, (n - 0.5 - o) / s) for o, s, n in zip(start, step, size) if s))
            end, optical, t = distance / length, 0.0, entry
            number = 0
            while t <= end:
                value = sigma([o + t * s for o, s in zip(start, step)])
                optical += value * 0.5 * length if value > 1e-8 else 0
                number += 1
                t = entry + 0.5 * number
            weights.append(math.exp(-optical) if math.exp(-optical) >= 1e-7 else 0.0)
        weight, left = torch.tensor(weights, dtype=torch.float64), torch.stack(colours)
        functions = torch.tensor(bases, dtype=torch.float64).T
        coefficients = []
        for function in functions:
            k = 4 * math.pi / (weight.sum() + 1e-9) * (weight * function) @ left
            left = left - function[:, None] * k
            coefficients.append(k)
        found[tuple(voxel)] = weight.sum(), torch.stack(coefficients, -1), (weight[:, None] * left.square()).sum()
    alpha = {voxel: 1 - math.exp(-float(volume[voxel]) * radius[0] / size[0]) for voxel in found}
    above = sum(alpha[voxel] * float(value[2]) for voxel, value in found.items())
    below = sum(alpha[voxel] * float(value[0]) for voxel, value in found.items())
    return -10 * math.log10(above / (below + 1e-9)), found


@pytest.mark.parametrize("shape", [(12, 12, 12), (7, 5, 6)])
def test_definition(shape):
    radius = (1.0, 1.0, 1.0) if shape[0] == 12 else (0.9, 0.7, 0.8)
    volume = ball(0.5, sigma=3.0)
    if shape[0] != 12:
        volume = 4 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 2  # half of it negative
    views = views_of(textured, look_at_centre(6))
    box = Box(torch.zeros(3), torch.tensor(radius))
    found = imrc(volume, box, views)
    score, voxels = by_definition(volume, radius, views)
    assert found.score == pytest.approx(score, abs=1e-3)
    fit = fit_voxels(VoxelMarch(volume, box, 0.5), torch.tensor(list(voxels)), views)
    for row, (weight, coefficients, residual) in enumerate(voxels.values()):
        assert float(fit.weight[row]) == pytest.approx(float(weight), rel=1e-4, abs=1e-5)
        assert torch.allclose(fit.coefficients[row].double(), coefficients, rtol=1e-3, atol=1e-4)
        assert float(fit.residual[row]) == pytest.approx(float(residual), rel=1e-3, abs=1e-5)
    assert torch.equal(found.weight > 0, found.residual > 0)
    mean = float(found.residual.double().sum() / found.weight.double().sum())
    assert -10 * math.log10(mean) == pytest.approx(score, abs=1e-3)


def test_nothing_is_seen_before_the_near_plane():
    views = views_of(textured, look_at_centre(6))
    volume = ball(0.9, sigma=1.0)
    place = (torch.arange(12) + 0.5) / 6 - 1
    places = torch.stack(torch.meshgrid(place, place, place, indexing="ij"), -1)[volume > 0]
    near = (places - views.poses[0, :3, 3]).norm(dim=-1) < 2.8
    assert 0 < int(near.sum()) < len(near)
    one = Views(views.images[:1], views.intrinsics[:1], views.poses[:1])
    weights = [imrc(volume, UNIT, one, near_clip=clip).weight[volume > 0] for clip in (0.0, 2.8)]
    assert not weights[1][near].any()
    # What lies behind is less hidden than before.
    seen = ~near & (weights[0] > 0)
    assert bool((weights[1][seen] >= weights[0][seen] * (1 - 1e-5)).all())
    assert float(weights[1][seen].sum()) > 1.1 * float(weights[0][seen].sum())


def test_more_harmonics_leave_less():
    views = views_of(textured, look_at_centre(30))
    voxels = (ball(0.6) > 0).nonzero()[::5]
    fits = [fit_voxels(VoxelMarch(ball(0.6, sigma=3.0), UNIT, 0.5), voxels, views, degree) for degree in range(4)]
    assert [fit.coefficients.shape[2] for fit in fits] == [1, 4, 9, 16]
    for fewer, more in pairwise(fits):
        # One coefficient after the other: further ones change none of those before.
        assert torch.equal(more.coefficients[..., : fewer.coefficients.shape[2]], fewer.coefficients)
    assert float(fits[2].residual.sum()) < float(fits[0].residual.sum())
    scores = [imrc(ball(0.6), UNIT, views, sh_degree=degree).score for degree in (0, 2)]
    assert scores[0] < scores[1]


def test_one_colour_leaves_nothing():
    views = views_of(plain, look_at_centre())
    constant = views._replace(images=[torch.full((SIZE, SIZE, 3), 0.8)] * 14)
    assert imrc(ball(0.6), UNIT, constant).score == 120.0
    fit = fit_voxels(VoxelMarch(ball(0.6), UNIT, 0.5), torch.tensor([[6, 6, 2]]), constant)
    assert float(fit.coefficients[0, 0, 0]) == pytest.approx(0.3 / 0.28209479177387814, rel=1e-5)


@pytest.mark.parametrize("colour", [plain, textured])
def test_right_geometry_ranks_first(colour):
    views = views_of(colour, look_at_centre())
    right, inflated, fog = (imrc(volume, UNIT, views).score for volume in (ball(0.6), ball(0.8), ball(0.9, sigma=1.0)))
    assert right > inflated + 3
    assert right > fog + 3


def test_order_of_views_and_blind_ones_make_no_difference():
    views = views_of(textured, look_at_centre())
    score = imrc(ball(0.6), UNIT, views).score
    order = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    shuffled = Views([views.images[number] for number in order], views.intrinsics, views.poses[order])
    assert imrc(ball(0.6), UNIT, shuffled).score == pytest.approx(score, abs=1e-4)
    # A view of another size that looks away.
    away = views.poses[:1].clone()
    away[0, :3, [0, 2]] *= -1
    more = Views(
        [*views.images, torch.rand(9, 17, 3)],
        torch.cat([views.intrinsics, intrinsics()[None]]),
        torch.cat([views.poses, away]),
    )
    assert imrc(ball(0.6), UNIT, more).score == pytest.approx(score, abs=1e-5)


def test_more_views_than_the_released_kernel_takes_and_images_of_two_sizes():
    poses = look_at_centre(130)
    sizes = [28 if number % 2 else 42 for number in range(130)]
    images = [picture_of_ball(pose, plain, size=s, focal=FOCAL * s / 28) for pose, s in zip(poses, sizes)]
    matrices = torch.stack([intrinsics(s, FOCAL * s / 28) for s in sizes])
    assert imrc(ball(0.6, size=6), UNIT, Views(images, matrices, poses)).score > 10


def test_empty_space_is_left_out_without_a_difference():
    volume = torch.zeros(40, 40, 40)
    volume[18:22, 18:22, 18:22] = 9.0
    volume[3, 4:6, 30] = 2.0
    march = VoxelMarch(volume, UNIT, 0.5)
    assert int(march.skip.max()) > 10
    grid = (volume > 0).nonzero().float()
    origin = torch.tensor([-31.0, 60.2, 17.3])
    fast = march.transmittance(origin, grid)
    march.skip.zero_()
    assert torch.equal(march.transmittance(origin, grid), fast)
    assert 0 < float(fast.min()) < 0.5 < float(fast.max()) <= 1


def test_normalised_device_coordinates():
    """A plane at depth 4 in front of parallel cameras, which see a pattern on it."""
    volume = torch.zeros(16, 16, 16)
    poses = torch.eye(4).repeat(6, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.4, 0.4, 6)
    matrix = intrinsics(32, 32.0).repeat(6, 1, 1)
    box = Box(torch.zeros(3), torch.ones(3))
    place = torch.arange(32) - 15.5
    columns, rows = place[None].expand(32, 32), place[:, None].expand(32, 32)
    images = []
    for pose in poses:
        x, y = columns * 4 / 32 + pose[0, 3], rows * 4 / 32
        images.append(torch.stack([0.5 + 0.4 * torch.sin(3 * x), 0.5 + 0.4 * torch.cos(3 * y), x * 0 + 0.2], -1))
    scores = {}
    for layer in (6, 11, 14):  # z' = 1 - 2 / z: 0.4375 is at 3.6
        volume.zero_()
        volume[2:14, 2:14, layer] = 100.0
        scores[layer] = imrc(volume, box, Views(images, matrix, poses), ndc=(2.0, 2.0)).score
    assert scores[11] == max(scores.values())
    assert math.isfinite(scores[6])


def test_backgrounds():
    picture = torch.tensor([[[0.5, 0.2, 0.1, 1.0], [0.9, 0.9, 0.9, 0.0], [0.4, 0.4, 0.4, 0.5]]])
    even, odd = background_images([picture, picture], "high-frequency")
    assert torch.allclose(even[0, 1:], torch.tensor([[1.0] * 3, [0.7] * 3]))
    assert torch.allclose(odd[0, 1:], torch.tensor([[0.0] * 3, [0.7] * 3]))
    even, odd = background_images([picture, picture], "high-frequency", normal="black")
    assert torch.allclose(even[0, 1:], torch.tensor([[0.0] * 3, [0.2] * 3]))
    assert torch.allclose(odd[0, 1:], torch.tensor([[1.0] * 3, [0.2] * 3]))
    assert torch.allclose(background_images([picture] * 2, "white")[1][0, 1:], torch.tensor([[1.0] * 3, [0.7] * 3]))


def test_what_does_not_fit_is_said():
    views = views_of(plain, look_at_centre(2))
    with pytest.raises(ValueError, match="no voxel has a density above 1e-08"):
        imrc(torch.zeros(4, 4, 4), UNIT, views)
    with pytest.raises(ValueError, match="2 images, but 1 intrinsics and 2 poses"):
        imrc(ball(0.6), UNIT, views._replace(intrinsics=views.intrinsics[:1]))
    with pytest.raises(ValueError, match="not finite"):
        imrc(ball(0.6) / 0, UNIT, views)
    with pytest.raises(ValueError, match="image 0 has the shape"):
        imrc(ball(0.6), UNIT, views._replace(images=[torch.zeros(4, 4, 4)] * 2))
