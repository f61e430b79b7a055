"""A look at a data set before anything slow starts: what is wrong, how often, where, and what to do."""
