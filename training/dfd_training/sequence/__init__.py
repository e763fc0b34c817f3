"""The sequence model: features of whole clips, and the fit on them."""
