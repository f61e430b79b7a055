"""FreqFusion: frequency-aware feature fusion for dense prediction (TPAMI 2024, arXiv 2408.12879).

``sampler``, ``fusion`` and ``pyramid`` are plain torch; ``neck`` and ``head`` register with mmdet and mmseg.
"""
