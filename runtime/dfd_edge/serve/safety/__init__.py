"""Protection against requests of strangers, hostile uploads and addresses inside the network."""
