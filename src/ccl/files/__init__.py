"""Files: written whole or not at all, by one writer a folder; read with their name in whatever goes wrong; sums."""

from ccl.files.errors import FileError, MachineError, machine_trouble, naming, plain_name, reading
from ccl.files.lock import LOCK, one_writer, own_folder
from ccl.files.sums import cache, sha256, sha256_now
from ccl.files.whole import MARK, add_line, replacing, replacing_path, sweep, sync, temporary, writable, write_whole

__all__ = [
    "LOCK",
    "MARK",
    "FileError",
    "MachineError",
    "add_line",
    "cache",
    "machine_trouble",
    "naming",
    "one_writer",
    "own_folder",
    "plain_name",
    "reading",
    "replacing",
    "replacing_path",
    "sha256",
    "sha256_now",
    "sweep",
    "sync",
    "temporary",
    "writable",
    "write_whole",
]
