"""What an evaluation is looked at by: tables, curves, the worst mistakes, one page; and runs side
by side."""
