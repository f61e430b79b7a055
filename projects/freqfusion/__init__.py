"""FreqFusion: frequency-aware feature fusion for dense prediction (TPAMI 2024, arXiv 2408.12879).

``sampler`` and ``fusion`` are plain torch.
"""
