"""What the nerfstudio methods of this suite share.

`parsers` (a scene read by any data parser, with one sentence for whatever is wrong), `*_dataparser` (what reads each
layout; `intrinsics` and `transforms` are what they share), `scene_checks` (a whole scene looked at before a run;
`camera_checks` and `image_checks` are its parts, `depth_range` is near and far), `check_scene` (the command),
`datamanager` (rays of training images kept as uint8), `model` (metrics, loading of grown parameters), `stages`
(several training stages in one run), `optimizers`, `trainer`, `checkpoints` and `resume` (whole checkpoints that know
their run), `scene` (views of a scene without a run, read as a run read them), `camera_paths`, `exporting` (what
nerfstudio's exporters ask for), `errors`. Methods register through the `nerfstudio.method_configs` entry points of the
package; what one asks of a scene, its settings say in `scene_use`.

Every `ns-` command imports every registered method, so nothing here imports more than nerfstudio's own configs do.
"""
