"""What the command lines share: configs, checkpoints, data-set checks and error reports on top of MMEngine."""
