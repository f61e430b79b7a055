"""ActiveNeRF: a radiance field that knows its uncertainty, and chooses by it which view to take next (ECCV 2022)."""
