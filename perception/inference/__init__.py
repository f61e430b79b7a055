"""Folder in, predictions and pictures out.

In the order in which an image meets them: `scan` (which files), `decoding` (file to pixels, in processes of `pool`),
`detector` (pixels to detections, in batches formed by `batching`), `results` (what a detection is, and its JSON),
`drawing` (detections to a picture), `output` (the folder of results, continued after an interruption; `journal` and
`atomic` are its file formats). `folder.run` is all of them at once, and what `tools/infer.py` calls.

What `scan`, `decoding` and `pool` import must stay light: every worker process imports it again.
"""
