"""TensorRT and TensorRT for RTX behind one code; ``variant`` is the table of what differs.

What needs no GPU (the table, plan headers, refusals, the reading of messages, buffer sizes) is apart from the calls of
the driver (``cuda``), so that it is tested everywhere.
"""
