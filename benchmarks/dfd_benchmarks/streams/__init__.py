"""Live streams over loopback: senders, receivers, staleness, and how many a machine carries."""
