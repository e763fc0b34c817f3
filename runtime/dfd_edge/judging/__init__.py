"""From frames to verdicts: observations of people, logits, labels, results."""
