"""Fitting the frame model: settings, rows, batches, losses, stages and the record of a run."""
