"""Provider, precision, batch and threads tried against each other."""
