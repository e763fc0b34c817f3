"""Judgements: their database, their queue, the processes that judge, and their results."""
