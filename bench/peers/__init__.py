"""The same weights through other runtimes, side by side in one run."""
