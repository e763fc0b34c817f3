"""Models from other programs: `.h5` and `.keras` files of notebooks, converted for a bundle."""
