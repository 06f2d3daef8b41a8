"""What this machine is: told by `ccl bench` and `ccl doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

WSL = (
    "Windows itself lacks what CCL's files and trainings stand on: locks of folders, links, signals; in WSL2 all is as "
    "on Linux"
)
WSL_MEND = "wsl --install"


def windows() -> bool:
    """Whether this is Windows itself; WSL is a Linux."""
    return sys.platform == "win32"


def best_device() -> str:
    """Where networks work unless a device is named: the GPU, where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cpu_name() -> str:
    """Of the processor; "CPU" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")


def memory() -> int | None:
    """Bytes of memory; None where the system does not tell."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
