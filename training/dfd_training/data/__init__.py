"""Data: tables of labelled files, readers of public data sets, and the crop store."""
