"""Bundles on disk: manifest, card, metadata, probe."""
