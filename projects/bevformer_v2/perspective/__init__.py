"""The perspective head: every image's own 3D boxes, which supervise the backbone (DD3D, arXiv 2108.06417)."""
