"""A mesh of the surface, with materials at its vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes
from torch import Tensor

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.radiance.split_sum import linear_to_srgb
from projects.rise_sdf.core import RiseSDF

COARSE = 96  # vertices per side of the first pass
MARGIN = 0.1  # by which the box of the first pass' mesh is enlarged
SLAB = 32  # layers that are evaluated and searched at once
POINTS = 2**16  # evaluated at once
FORMATS = (".glb", ".ply")


@torch.no_grad()
def extract_mesh(field: RiseSDF, resolution: int) -> trimesh.Trimesh:
    """The surface in the field's own frame, wound outwards.

    Args:
        field: trained.
        resolution: vertices per side of the second, fine pass.

    Raises:
        UserError: there is no surface.
    """
    radius = field.surface.settings.radius
    box = np.array([[-radius] * 3, [radius] * 3])
    first = _march(field, box, min(COARSE, resolution))
    extent = first.bounds[1] - first.bounds[0]
    box = np.clip(np.stack([first.bounds[0] - MARGIN * extent, first.bounds[1] + MARGIN * extent]), *box)
    mesh = _march(field, box, resolution)
    if mesh.volume < 0:
        mesh.invert()
    colours, metallic, roughness = _materials(field, torch.from_numpy(mesh.vertices).float())
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
    mesh.vertex_attributes["metallic"], mesh.vertex_attributes["roughness"] = metallic, roughness
    return mesh


def _march(field: RiseSDF, box: np.ndarray, resolution: int) -> trimesh.Trimesh:
    """Marching cubes, slab by slab: memory grows with the square of the resolution."""
    axes = [np.linspace(low, high, resolution, dtype=np.float32) for low, high in box.T]
    device = field.light.base.device
    parts = []
    volume = np.empty((0, resolution, resolution), np.float32)
    for start in range(0, resolution - 1, SLAB):
        # Neighbouring slabs share a layer, and its values: computed twice, they might differ in their last bits.
        layers = axes[0][start + (start > 0) : start + SLAB + 1]
        grid = torch.from_numpy(np.stack(np.meshgrid(layers, *axes[1:], indexing="ij"), -1)).view(-1, 3)
        values = torch.cat([field.surface.sdf.distance(part.to(device)).cpu() for part in grid.split(POINTS)])
        volume = np.concatenate([volume[-1:], values.view(-1, resolution, resolution).numpy()])
        if not volume.min() < 0 < volume.max():
            continue
        corners, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="ascent")
        # In whole steps of the lattice, vertices of the layer that two slabs share are the same to the last bit.
        corners = np.add(corners, [start, 0, 0], dtype=np.float64)
        parts.append(trimesh.Trimesh(corners, faces, process=False))
    if not parts:
        raise UserError("the field has no surface at level 0: train it for longer, or with a mask")
    mesh = trimesh.util.concatenate(parts)
    mesh.merge_vertices()
    mesh.vertices = box[0] + mesh.vertices * ((box[1] - box[0]) / (resolution - 1))
    return mesh


def _materials(field: RiseSDF, vertices: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sRGB albedo (V, 4) uint8, metallic and roughness (V,) float32."""
    found = []
    for part in vertices.to(field.light.base.device).split(POINTS):
        materials = field.texture.materials(part, field.surface.sdf.features(part))
        found.append(torch.cat([linear_to_srgb(materials.albedo), materials.metallic, materials.roughness], -1).cpu())
    values = torch.cat(found).clamp(0, 1)
    colours = torch.cat([(values[:, :3] * 255).round(), torch.full((len(values), 1), 255.0)], -1)
    return colours.byte().numpy(), values[:, 3].numpy(), values[:, 4].numpy()


def to_input_frame(mesh: trimesh.Trimesh, transform: Tensor, scale: float) -> np.ndarray:
    """Move a mesh from the frame in which a scene was read to that of its files; one that is mirrored stays wound
    outwards.

    Args:
        mesh: is changed.
        transform: (3, 4) by which the data parser moved poses.
        scale: by which it scaled them afterwards.

    Returns:
        The matrix (4, 4) by which vertices were moved.
    """
    matrix = np.eye(4)
    matrix[:3] = transform.double().numpy() * scale
    inverse = np.linalg.inv(matrix)
    mesh.apply_transform(inverse)
    return inverse


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write a `.glb` or `.ply`, under a temporary name until it is complete.

    Raises:
        UserError: the suffix is another, or the file cannot be written.
    """
    content = mesh.export(file_type=path.suffix.lower()[1:])
    with replacing(path) as file:
        file.write(content)
