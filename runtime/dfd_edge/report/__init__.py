"""One page that shows and explains the verdicts of a run, as a self-contained HTML file."""
