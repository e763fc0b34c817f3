"""Decoding of untrusted sources in a limited child process.

`source` is the parent's side, `child` the program that decodes, `confining` what limits it.
"""
