"""Data: the RefHL-Seg layout, and the synthetic RefHL-Phantom in it."""
