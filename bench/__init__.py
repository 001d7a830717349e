"""Measurements: accuracy on a data set in the RefHL-Seg layout."""
