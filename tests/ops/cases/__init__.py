"""Inputs for the native kernels: one module per operator, with the operator's name, whose ``CASES`` are tested."""
