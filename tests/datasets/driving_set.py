"""The small driving set that several tests read."""

from perception.datasets.synthetic import driving

PARAMS = driving.Params(num_train=1, num_val=1, frames=3, width=96, samples=1, columns=360, crowd=4, seed=3)
