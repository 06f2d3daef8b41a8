"""Scores as tables: what is counted together, with which intervals, in Markdown, CSV and LaTeX."""
