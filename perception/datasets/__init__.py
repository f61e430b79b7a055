"""Data sets and transforms registered with MMEngine, and the built-in synthetic sets."""
