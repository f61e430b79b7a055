"""BEVFormer v2: 3D detection from the cameras of a vehicle, with perspective supervision (arXiv 2211.10439).

``points``, ``attention``, ``encoder``, ``decoder``, ``fusion``, ``transformer``, ``head``, ``coder``, ``matching`` and
``losses`` are the detector seen from above, ``perspective`` the head that looks at each image, ``proposals`` the
two-stage variant: plain torch. ``detector`` and ``preprocessor`` register the system with MMEngine and mmdet,
``converter`` translates published checkpoints.
"""
