"""Boxes without any annotation: what stands on the ground by itself and has the size of an object.

This is no detector: it knows nothing of categories, takes bushes for people, and misses what touches something else. It
gives a tracker something to follow in clouds that nobody has labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Clustering:
    """How clusters are found.

    Attributes:
        distance: metres between neighbours of a cluster.
        fewest: points of a cluster.
        ground: metres above the ground that count as ground.
        reach: metres from the sensor within which clusters are looked for.
        smallest, largest: metres, of a box's length.
        lowest, highest: metres, of a box's height.
        most: boxes of a cloud, those of most points.
    """

    distance: float = 0.6
    fewest: int = 20
    ground: float = 0.25
    reach: float = 40.0
    smallest: float = 0.3
    largest: float = 12.0
    lowest: float = 0.5
    highest: float = 4.0
    most: int = 20

    def boxes(self, points: np.ndarray) -> Tensor:
        """Boxes (B, 7) float64 of a cloud (N, 3), those of most points first.

        Ground is the plane that most points lie on (RANSAC, with a fixed seed); what is above it is clustered
        (DBSCAN), and the smallest upright rectangle around each cluster is its box.
        """
        import cv2
        import open3d

        near = points[np.hypot(points[:, 0], points[:, 1]) < self.reach].astype(np.float64)
        if len(near) < self.fewest:
            return torch.zeros(0, 7, dtype=torch.float64)
        open3d.utility.random.seed(0)
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(near))
        (a, b, c, d), _ = cloud.segment_plane(distance_threshold=0.2, ransac_n=3, num_iterations=300)
        height = (near @ [a, b, c] + d) * np.sign(c or 1.0)
        level = abs(c) > 0.9  # else the plane is a wall, and nothing is known of the ground
        above = near[height > self.ground] if level else near
        if len(above) < self.fewest:
            return torch.zeros(0, 7, dtype=torch.float64)
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(above))
        labels = np.asarray(cloud.cluster_dbscan(eps=self.distance, min_points=5))
        found = []
        for label in range(labels.max(initial=-1) + 1):
            members = above[labels == label]
            if len(members) < self.fewest:
                continue
            (x, y), (length, width), angle = cv2.minAreaRect(members[:, :2].astype(np.float32))
            yaw = np.radians(angle)
            if length < width:
                length, width, yaw = width, length, yaw + np.pi / 2
            bottom, top = members[:, 2].min() - (self.ground if level else 0.0), members[:, 2].max()
            if self.smallest <= length <= self.largest and self.lowest <= top - bottom <= self.highest:
                size = [length, max(width, 0.3), top - bottom]
                found.append((len(members), [x, y, (bottom + top) / 2, *size, (yaw + np.pi / 2) % np.pi - np.pi / 2]))
        found.sort(key=lambda entry: -entry[0])
        boxes = [box for _, box in found[: self.most]]
        return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 7)
