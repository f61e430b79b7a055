"""Torch modules and functions that several systems build on: attention, position encodings, reference points."""
