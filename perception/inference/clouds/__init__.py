"""Folders of point clouds: sequences in which a model follows objects from their first boxes on."""
