"""Pictures of boxes in space, under the name by which folder runs know them."""

from perception.datasets.pictures_3d import draw_wire_frames, view_from_above

__all__ = ["draw_wire_frames", "view_from_above"]
