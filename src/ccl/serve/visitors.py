"""Who asks something of the page, as far as it is known before they are let in."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def hostname(host: str) -> str:
    """What a Host header names, in small letters and without its port; "" where it names nothing."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
