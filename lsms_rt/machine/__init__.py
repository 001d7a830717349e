"""What this machine has: NVIDIA GPU, Jetson board."""
