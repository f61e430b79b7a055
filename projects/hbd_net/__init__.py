"""HBD-Net: detection of bridges in very large images (TPAMI 2024, arXiv 2312.02481).

``fusion`` and ``reweighting`` are plain torch; ``head`` registers with mmdet; ``converter``
translates published checkpoints.
"""
