"""DN2N: editing scenes by text through a radiance field that is shared by all scenes; IBRNet is that field."""
