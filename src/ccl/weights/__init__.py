"""Published weights: a table of what there is and where from, fetched, found by name, read without unpickling."""
