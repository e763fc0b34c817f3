"""The cost of each stage of the pipeline, and of starting a process."""
