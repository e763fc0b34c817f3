"""`dfd-edge serve` under load, killed and started again, and held against the command line."""
