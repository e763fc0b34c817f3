"""Calibration and thresholds: how the logits of a variant become labels."""
