"""Evaluation of bundles and frame models: figures, pages, robustness, comparisons."""
