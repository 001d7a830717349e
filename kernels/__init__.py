"""Home of the Triton kernels; none has landed yet, every engine runs stock operations."""
