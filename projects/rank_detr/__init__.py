"""Rank-DETR: a rank-oriented DETR detector (NeurIPS 2023, arXiv 2310.08854).

``levels``, ``layers``, ``transformer``, ``head``, ``matching`` and ``losses`` are plain torch; ``detector`` and
``hooks`` register the system with MMEngine and mmdet; ``converter`` translates published checkpoints.
"""
