"""Parts of mmdet's and mmrotate's detectors that several systems share, in their registries."""
