"""Pictures of results: annotated frames, windows, live lines in a terminal."""
