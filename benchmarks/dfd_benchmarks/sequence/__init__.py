"""The sequence graph alone: the cost of a step, and the native graph against tf2onnx's."""
