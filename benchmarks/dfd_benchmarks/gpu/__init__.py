"""The frame model on an NVIDIA GPU."""
