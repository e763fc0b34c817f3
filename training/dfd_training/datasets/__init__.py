"""Public data sets, each in its own layout, brought into the one table that training reads."""
