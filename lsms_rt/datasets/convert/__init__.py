"""Public data sets of lesion masks, converted to the RefHL-Seg layout.  Nothing is downloaded."""
