"""The gate: graphs must say what their Keras models say, or nothing is written."""
