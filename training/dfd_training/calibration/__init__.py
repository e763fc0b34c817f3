"""Calibrators, thresholds and card of a model, set on the folds that its fits did not see."""
