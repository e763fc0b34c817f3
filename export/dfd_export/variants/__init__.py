"""Variants of the frame graph: other precisions, each with what it changes against fp32."""
