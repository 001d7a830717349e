"""Training of the demo weights on RefHL-Phantom: build side only."""
