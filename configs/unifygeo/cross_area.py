"""UnifyGeo trained in New York and Seattle, tested in Chicago and San Francisco. Published: 25.58 LF@1m."""

from mmengine.config import read_base

with read_base():
    from ..unifygeo import *

train_dataloader.dataset.protocol = "cross_area"
val_dataloader.dataset.protocol = "cross_area"
test_dataloader.dataset.protocol = "cross_area"
gallery.dataset.protocol = "cross_area"
train_pairs.dataset.protocol = "cross_area"
train_gallery.dataset.protocol = "cross_area"
val_cfg.gallery = test_cfg.gallery = gallery
custom_hooks[0].update(gallery=train_gallery, pairs=train_pairs)
