"""Geometry that several systems share: where each convention is written down once.

Cameras of radiance fields are OpenGL ones (x right, y up, looking along -z); those of driving data are OpenCV ones
(x right, y down, looking along +z). Every function that takes a pose says which.
"""
