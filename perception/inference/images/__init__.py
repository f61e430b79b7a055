"""Folders of images: detection, instance, semantic and panoptic segmentation.

`kind` puts it together. In the order in which an image meets them: `reader` (which files; pixels by `decoding`, and of
rasters by `gdal_raster` with `bands` and `tones`), `detector` (pixels to `results`, of which `nodata` leaves out what
lies on none), a writer for each kind of result (`box_writer`, `label_map_writer`, `segment_writer`; `drawing` makes
their pictures), and what sums up a run (`coco_results`, `dota_files`).

Huge images go through `tiled` instead: `raster` reads the windows that `tiles` lays out, and `merging` joins what was
found in them.
"""
