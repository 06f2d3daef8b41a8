"""`python -m ccl` is `ccl`."""

from __future__ import annotations

from ccl.cli import main

raise SystemExit(main())
