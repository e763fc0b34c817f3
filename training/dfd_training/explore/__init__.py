"""What a table of labelled files holds: a page to look at before anything is trained."""
