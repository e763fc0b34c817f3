"""What the service keeps out: requests of strangers, hostile uploads and inside addresses."""
