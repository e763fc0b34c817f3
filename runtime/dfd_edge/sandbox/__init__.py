"""Decoding in a child process that is limited, for sources that nobody vouches for.

`source` is the parent's side, `child` the program that decodes, `confining` what limits it.
"""
