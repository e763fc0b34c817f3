"""Inspection, verification and comparison of bundles."""
