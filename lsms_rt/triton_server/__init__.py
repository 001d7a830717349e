"""A model repository for NVIDIA Triton Inference Server: ``export`` writes it, ``model`` answers in Triton's stub.

The tensors are those of ``lsms-rt serve`` (``lsms_rt.serving.tensors``), and so is what computes them
(``lsms_rt.serving.work``).  ``config`` words config.pbtxt, ``probe`` asks a running server for a real inference.
"""
