"""Data sets of referring segmentation: the RefHL-Seg layout, and the synthetic RefHL-Phantom in it."""
