"""From frames to verdicts."""
