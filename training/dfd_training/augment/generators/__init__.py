"""Fakes made by trained networks from stored real crops, and stored beside them."""
