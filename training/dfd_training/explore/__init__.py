"""Exploration of a table of labelled files, on one page, before anything is trained."""
