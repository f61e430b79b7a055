"""ARC: Adaptive Rotated Convolution for oriented object detection (ICCV 2023, arXiv 2303.07820).

``rotation``, ``routing`` and ``conv`` are plain torch; ``backbone`` and ``extractor`` register with mmdet and mmrotate;
``converter`` translates published checkpoints.
"""
