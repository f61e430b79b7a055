"""Point clouds of any format as named columns.

Readers go by what a file holds, not by its name. Worker processes import this package, so it imports nothing heavy.
"""
