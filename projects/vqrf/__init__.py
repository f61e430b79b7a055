"""VQRF: compresses a voxel radiance field to about one megabyte (CVPR 2023)."""
