"""What a machine can carry: costs of the stages, and how much of them the runtime makes use of."""
