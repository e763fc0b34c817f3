"""Long runs: memory, threads, descriptors and latency over time."""
