"""Running graphs: the providers of onnxruntime, precisions, batches and the loaded bundle.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it.
"""
