"""Parts of radiance fields in plain torch: grids, samplers, activations, compositing, optimiser, metrics.

Nothing here knows nerfstudio. Samples of a batch of rays are *ragged*: flat arrays sorted by ray, then by step, with a
``ray_id`` per sample, so that empty space costs neither memory nor time once a mask has removed it.
"""
