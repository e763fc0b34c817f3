"""Submission files of the Deepfake Detection Challenge."""
