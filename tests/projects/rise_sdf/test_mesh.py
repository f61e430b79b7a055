"""Meshes: wound outwards whatever the sign or the frame, and in the frame of the scene's files."""

import json

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from perception.datasets.synthetic import radiance
from perception.engine.errors import UserError
from perception.studio.parsers import read_by
from projects.rise_sdf.mesh import extract_mesh, to_input_frame
from tests.projects.rise_sdf.cases import small_field

pytestmark = pytest.mark.xdist_group("nerfstudio")
CENTRE, RADIUS = torch.tensor([0.2, -0.1, 0.3]), 0.6


def ball(sign=1.0):
    """A field whose distance is that of a ball."""
    field = small_field()
    field.surface.sdf.distance = lambda points: sign * (torch.linalg.vector_norm(points - CENTRE, dim=-1) - RADIUS)
    return field


def outwards(mesh, centre):
    """The least cosine between a vertex' normal and the direction from the centre."""
    away = mesh.vertices - centre
    return float((mesh.vertex_normals * away / np.linalg.norm(away, axis=-1, keepdims=True)).sum(-1).min())


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["negative inside", "positive inside"])
def test_faces_look_outwards(sign):
    mesh = extract_mesh(ball(sign), 48)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.02)
    assert outwards(mesh, CENTRE.numpy()) > 0.95
    # Outside is where the distance grows, as normals of the field have it.
    radii = np.linalg.norm(mesh.vertices - CENTRE.numpy(), axis=-1)
    assert np.abs(radii - RADIUS).max() < 2e-3


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mesh_is_in_the_frame_of_the_files(mirrored):
    """Whose scene was turned, moved, and made 37 times as small."""
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0 if mirrored else 1.0]])
    shift = np.array([5.0, -70.0, 11.0])
    transform = torch.from_numpy(np.concatenate([turn, -(turn @ shift)[:, None]], 1)).float()
    mesh = extract_mesh(ball(), 40)
    moved = to_input_frame(mesh, transform, 1 / 37)
    centre = turn.T @ CENTRE.double().numpy() * 37 + shift
    assert mesh.centroid == pytest.approx(centre, abs=0.1)
    assert mesh.bounding_sphere.primitive.radius == pytest.approx(37 * RADIUS, rel=0.01)
    assert mesh.volume > 0
    assert outwards(mesh, centre) > 0.95
    assert (moved @ [*CENTRE.tolist(), 1])[:3] == pytest.approx(centre)


def test_the_frame_of_a_scaled_scene(tmp_path):
    """Cameras of the scene, moved like a mesh, are those of its files."""
    radiance.write(tmp_path, radiance.Params(num_train=3, num_val=1, num_test=1, size=12, num_objects=1))
    path = tmp_path / "transforms_train.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 37
    path.write_text(json.dumps(content))
    parser = read_by(BlenderDataParserConfig(data=tmp_path, scale_factor=1 / 37)).setup()
    outputs = parser.get_dataparser_outputs("train")
    mesh = extract_mesh(ball(), 24)
    moved = to_input_frame(mesh, outputs.dataparser_transform, float(outputs.dataparser_scale))
    assert mesh.bounding_sphere.primitive.radius == pytest.approx(37 * RADIUS, rel=0.01)
    for pose, frame in zip(outputs.cameras.camera_to_worlds.numpy(), content["frames"]):
        expected = np.array(frame["transform_matrix"])[:3, 3]
        assert (moved @ [*pose[:, 3], 1])[:3] == pytest.approx(expected, rel=1e-5)


def test_a_field_without_a_surface():
    field = ball()
    field.surface.sdf.distance = lambda points: points.new_ones(len(points))
    with pytest.raises(UserError, match="no surface at level 0"):
        extract_mesh(field, 16)
