"""Comparison with other runtimes on the same weights, in one run: ``lsms-rt bench peers``."""
