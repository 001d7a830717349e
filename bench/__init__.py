"""Benchmarks: speed, memory, energy and accuracy of engines, kernels and models.

Every benchmark writes a record (``records.py``), which ``lsms-rt bench report`` shows and ``lsms-rt bench compare``
compares.

- ``engine.py``, ``cold_start.py``, ``device_times.py``, ``sensors/``: one engine on this machine.
- ``peers/``: the same weights through other runtimes; ``scaling/``: cost against size, batch and sentence.
- ``accuracy.py``: masks against a data set; ``int8.py``, ``half_precision.py``, ``real_ct.py``: single questions.
- ``plans.py``: building TensorRT plans; ``gpu/``: kernels, runtime and models on a GPU, and their floors.
- ``timing.py``, ``samples.py``, ``records.py``, ``style.py``: the one stopwatch, statistics, file format and style of
  pictures that all of them use.
"""
