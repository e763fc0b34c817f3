"""Evaluation of frame models on the crops of a store, without a bundle."""
