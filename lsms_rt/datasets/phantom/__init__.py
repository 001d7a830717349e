"""RefHL-Phantom: synthetic abdominal CT slices with true lesion attributes."""
