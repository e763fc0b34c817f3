"""Measuring quality: what the figures of a detector are worth, and what breaks them."""
