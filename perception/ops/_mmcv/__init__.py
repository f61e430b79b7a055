"""The functions of :mod:`perception.ops.mmcv_ext`, by family."""
