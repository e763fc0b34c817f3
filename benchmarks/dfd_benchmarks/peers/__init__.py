"""Other ways to run the same weights, held against the runtime's."""
