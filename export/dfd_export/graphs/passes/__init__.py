"""Rewrites of ONNX graphs that change no result beyond rounding, one kind a module."""
