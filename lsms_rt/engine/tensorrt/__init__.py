"""The backend for TensorRT and TensorRT for RTX; ``variant`` is the table of their differences.

Experimental: the calls that need a GPU (``cuda``, ``lane``, ``backend``, ``timing``) have been tested with a simulated
TensorRT and GPU only, and never run on a real one.

Everything that needs no GPU (the table, plan headers, compatibility checks, log messages, buffer sizes) is separate
from the driver calls, so that it is tested on every machine.
"""
