"""Provenance: what a file says of its own origin, beside what its pixels show."""
