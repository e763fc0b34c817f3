"""Recipes that others published, to be compared with on the same data."""
