"""Augmentation: jitter, degradation and codecs, synthesised forgeries and generators of fakes."""
