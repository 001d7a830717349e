"""RefHL-Phantom: synthetic abdominal CT slices with true lesion attributes."""

# Raise it whenever the same seed no longer gives the same data; figures of different versions cannot be compared.
PHANTOM_VERSION = 2
