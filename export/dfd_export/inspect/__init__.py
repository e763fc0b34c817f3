"""What is in a bundle, whether it is whole, and what differs between two."""
