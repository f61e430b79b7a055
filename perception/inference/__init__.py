"""Folder in, predictions and pictures out.

In the order in which an image meets them: `scan` (which files), `decoding` (file to pixels, in processes of `pool`),
`detector` (pixels to what is found, in batches formed by `batching`, with `attempts` where the model may fail),
`results` (what can be found, and its JSON), `drawing` (a picture of it), `output` (the folder of results, continued
after an interruption; `journal`, `label_png` and `geojson` are its file formats). `folder.run` is all of them at once,
and what `tools/infer.py` calls.

Huge images go through `tiled` instead: `raster` reads the windows that `tiles` lays out, and `merging` joins what was
found in them.

What `scan`, `decoding` and `pool` import must stay light: every worker process imports it again.
"""
