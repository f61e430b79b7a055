"""Folder in, predictions and pictures out, whatever the folder holds.

`folder.run`, which `tools/infer.py` calls, is the same for every kind of folder: it opens OUT (`output`, with the
`journal` of what is done and the `settings` that it was done with), scans (`scan`), runs what is left, shows
`progress`, writes and sums up. What differs comes in through small protocols:

* `reading`: a reader says which sources a folder holds, and reads one in a process of `pool`;
* `predicting`: a predictor makes results of samples;
* `writing`: a writer, one for each kind of result, makes files and lines of the journal of them.

`kinds` puts them together and finds the kind that a config names. Three loops (`loops`) drive them: `batched` for
sources that have nothing to do with each other, in batches formed by `batching`; `ordered` for sequences, whose model
remembers (`states`); `streamed` for sources that never fit into memory. In all of them `attempts` makes reasons of a
model's failures.

`images` is the kind of folder that every detector and segmenter takes.

What `reading`, `scan` and `pool` import must stay light: every worker process imports it again.
"""
