"""Models that people already have: published `.h5` and `.keras` files, made fit for a bundle."""
