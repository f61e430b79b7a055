"""What the nerfstudio methods of this suite share.

`datamanager` (rays of training images kept as uint8), `scene_checks` and `errors` (bad scenes end in one sentence),
`nsvf_dataparser` (NSVF and Tanks&Temples folders), `model` (metrics, loading of parameters that have grown), `stages`
(several training stages in one run), `optimizers`, `trainer` (resume, whole checkpoints), `scene` (cameras of a scene
without a run). Methods register through the `nerfstudio.method_configs` entry points of the package.

Every `ns-` command imports every registered method, so nothing here imports more than nerfstudio's own configs do.
"""
