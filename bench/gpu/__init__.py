"""Checks and measurements that need a GPU, and computed floors.

**Not run on a GPU yet.**  The code here, the contenders in ``peers/`` that need a GPU, ``sensors/`` and
``device_times.py`` are tested on a CPU, with fakes and documented output of drivers and boards.  ``roofline.py`` and
``estimate.py`` only compute, and need no GPU.

- ``check.py``: everything in one command (``make gpu-check``).  ``plan.py`` says what runs and in which order,
  ``collect.py`` shares out the time, ``process.py`` and ``worker.py`` are the two sides of a unit's process,
  ``row_file.py`` keeps the rows, ``summary.py`` says what they show.  None of these imports PyTorch.
- The units: ``environment.py``, ``verify.py``, ``plugin_ptx.py``, ``models.py``, ``times.py``, ``parts.py``,
  ``sanitizer.py``, ``runtime.py``; ``timer.py`` and ``small_kernels.py`` are theirs.
- ``tune.py``: choose tile sizes by measuring.
- ``roofline.py``: floors of every kernel, block and model from bytes and operations.
- ``estimate.py``: the latency model of the kernels beside measured times.
"""
