"""Published recipes of other projects, as baselines on the same data."""
