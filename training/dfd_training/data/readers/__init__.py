"""Readers of public data sets: each turns one layout into rows of a table."""
