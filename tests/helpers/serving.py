"""The page of `ccl serve` on the smallest model, in a process of its own, until its standard input ends.

python tests/helpers/serving.py FOLDER WAITING UPLOAD ALLOWED [USER:PASSWORD]: the page's address is its first line.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: str, waiting: str, upload: str, allowed: str, password: str = "") -> None:
    import torch

    from ccl.serve import Desk, Folder
    from ccl.serve.page import launched
    from helpers.tiny import tiny_pipeline

    torch.set_num_threads(1)
    user, _, word = password.partition(":")
    desk = Desk(tiny_pipeline(), Folder(Path(folder)))
    where = {"host": "127.0.0.1", "port": None, "allowed": [allowed], "password": (user, word) if user else None}
    url, end = launched(desk, **where, waiting=int(waiting), upload=int(upload))
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stdin.read()
    end()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(*sys.argv[1:])
