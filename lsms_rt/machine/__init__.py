"""Hardware of this machine: NVIDIA driver and GPUs, Jetson boards."""
