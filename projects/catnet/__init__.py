"""CATNet: context aggregation for object detection and instance segmentation in aerial images (arXiv 2111.11057).

``convolution``, ``dense_fpn``, ``scp`` and ``hroie`` are plain torch; ``neck`` and ``extractor`` register with mmdet;
``converter`` checks and translates published checkpoints.
"""
