"""Receivers of results: console, JSON Lines, CSV, annotated video, webhook."""
