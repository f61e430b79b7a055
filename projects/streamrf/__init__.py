"""StreamRF: radiance fields of multi-view video, streamed as differences (arXiv 2210.14831)."""
