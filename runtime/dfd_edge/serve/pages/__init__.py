"""The pages for people: routes, verdicts in words, templates and plain ES modules."""
