"""Checks and measurements that need a GPU, and the floors computed for it."""
