"""One thread a test process: several run side by side, and threads that wait for each other cost ten times the work."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
