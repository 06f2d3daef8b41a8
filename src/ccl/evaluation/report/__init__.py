"""Scores as a page that one looks at and listens to."""
