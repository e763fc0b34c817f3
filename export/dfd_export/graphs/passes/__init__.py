"""Rewrites of ONNX graphs that change no result beyond rounding, on `onnx_ir`."""
