"""Geometry that several systems share: where each convention is written down once.

Cameras of radiance fields are OpenGL ones (x right, y up, looking along -z); those of driving data are OpenCV ones
(x right, y down, looking along +z). Every function that takes a pose says which. Boxes in space are
(x, y, z, l, w, h, yaw) around their centres (`boxes3d`), quaternions are (w, x, y, z), poses are named by direction
(`se3`), and rows of a grid seen from above follow y (`bev`).
"""
