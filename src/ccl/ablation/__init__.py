"""The laboratory: matrices of runs that are trained and rows that are sampled and scored, and what they tell."""
