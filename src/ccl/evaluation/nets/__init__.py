"""The networks of the metrics, under the key names of their published files."""
