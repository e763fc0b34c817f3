"""Clips as sequences of features, and the sequence model fitted on them."""
