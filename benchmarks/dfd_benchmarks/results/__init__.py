"""Results of benchmarks: their schema, the machine they come from, comparison, charts, pages."""
