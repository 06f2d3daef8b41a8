"""Scores of clips in files, whatever system made them; imports nothing of ccl but types, rows, files and media."""
