"""The `.vqrf` file: `container` is its frame and what it states of a field, `parts` how each part is coded."""
