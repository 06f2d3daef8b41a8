"""CCL: Cross-Modal Context Learning for joint audio-video generation (arXiv 2603.18600)."""

__version__ = "0.1.0"
