"""Single objects over time in point clouds: readers of data sets, training samples, whole sequences to evaluate."""
