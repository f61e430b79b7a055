"""RISE-SDF: relightable inverse rendering of glossy objects (3DV 2025)."""
