"""Checks and measurements that need a GPU, and computed floors.

**Not run on a GPU yet.**  The code here, the contenders in ``peers/`` that need a GPU, ``sensors/`` and
``device_times.py`` are tested on a CPU, with fakes and documented output of drivers and boards.  ``roofline.py`` only
computes, and needs no GPU.

- ``check.py``: everything in one command (``make gpu-check``), from ``verify.py``, ``runtime.py`` and ``times.py``.
- ``tune.py``: choose tile sizes by measuring.
- ``roofline.py``: floors of every kernel, block and model from bytes and operations.
"""
