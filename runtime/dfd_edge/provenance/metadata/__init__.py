"""Plain metadata of a file: unsigned statements, which anyone can write."""
