"""4K-NeRF: a voxel radiance field whose small renderings a depth-conditioned network turns into large ones."""
