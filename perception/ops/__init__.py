"""Numeric operators: one module per operator, each with a documented function and a readable torch reference."""
