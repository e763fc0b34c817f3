"""The detector as a folder of static files that judges inside a browser."""
