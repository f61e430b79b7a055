"""AdaFormer, SiamCUT and MoCUT: one tracker of single objects in point clouds for all categories (arXiv 2401.11204).

``backbone``, ``pointnet2``, ``siamese``, ``motion``, ``losses`` and ``box_transforms`` are plain torch.
"""
