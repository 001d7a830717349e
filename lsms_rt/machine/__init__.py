"""Hardware of this machine: its CPU, NVIDIA driver and GPUs, Jetson boards."""
