"""Damage, by a seed: to bytes as disks and downloads do it, and to values as people and attackers do."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

Damage = Callable[[Path, Random], str]  # damages a file; says how, in a word

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 10**12, 2**63, -(2**63), 1e308, float("nan"), float("inf"), 0.5),
    *("", "x", "../../escaped", "/absolute", "a\0b", "\ud800", "x" * 300, "=1+1", "\x1b[31m", "nan", "1e999", "null"),
    *("os.system", "subprocess.Popen", "ccl.model.DualStreamTransformer", "small.yaml"),
    *([], [[]], [None], {}, {"class_path": "os.getcwd"}, {"class_path": 3}, {"": 0}, {"a": {"b": []}}),
)


def damage(data: bytes, rng: Random) -> tuple[bytes, str]:
    """Other bytes, and in a word what was done to them."""
    size = max(len(data), 1)
    here, long = rng.randrange(size), max(1, int(size * rng.random() ** 3))
    end = min(size, here + long)
    ways: dict[str, Callable[[], bytes]] = {
        "flipped": lambda: _flipped(data, rng),
        "cut": lambda: data[:here],
        "zeroed": lambda: data[:here] + bytes(end - here) + data[end:],
        "tail zeroed": lambda: data[:here] + bytes(size - here),
        "dropped": lambda: data[:here] + data[end:],
        "doubled": lambda: data[:end] + data[here:],
        "noise": lambda: data[:here] + rng.randbytes(end - here) + data[end:],
        "inserted": lambda: data[:here] + rng.randbytes(min(long, 4096)) + data[here:],
        "head": lambda: rng.randbytes(min(16, size)) + data[16:],
        "empty": lambda: b"",
        "all zero": lambda: bytes(size),
        "text": lambda: b"<html>404 Not Found</html>\n",
    }
    way = rng.choice(["flipped", "flipped", *ways])
    return ways[way](), way


def _flipped(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def twist(tree: Any, rng: Random) -> tuple[Any, str]:
    """A copy of a tree of plain values with one node changed, and which."""
    tree = copy.deepcopy(tree)
    places = list(nodes_of(tree))
    if not places:
        return rng.choice(ODD), "all of it"
    parent, key, path = rng.choice(places)
    way = rng.choice(("odd", "odd", "odd", "gone", "renamed", "wrapped", "text", "twice"))
    if way == "odd":
        parent[key] = copy.deepcopy(rng.choice(ODD))
    elif way == "wrapped":
        parent[key] = rng.choice(([parent[key]], {"value": parent[key]}))
    elif way == "text":
        parent[key] = str(parent[key])
    elif way == "gone":
        del parent[key]
    elif way == "renamed" and isinstance(parent, dict):
        parent[f"{key}{rng.choice(('', 's', '_', '.x'))}x"] = parent.pop(key)
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[key] = [parent[key], parent[key]]
    return tree, f"{path} {way}"


def nodes_of(tree: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every node below a tree of plain values: what holds it, under which key, and its dotted path."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key, f"{path}.{key}".strip(".")
        yield from nodes_of(value, f"{path}.{key}".strip("."))


def in_bytes(path: Path, rng: Random) -> str:
    data, how = damage(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"bytes {how}"


def in_yaml(path: Path, rng: Random) -> str:
    tree, how = twist(yaml.safe_load(path.read_text()), rng)
    path.write_bytes(yaml.safe_dump(tree, sort_keys=False).encode(errors="surrogatepass"))
    return how


def in_json(path: Path, rng: Random) -> str:
    tree, how = twist(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(tree))
    return how


def in_lines(path: Path, rng: Random) -> str:
    """One row of a JSONL file."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tree, how = twist(rows, rng)
    rows = tree if isinstance(tree, list) else [tree]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return how


def in_cells(path: Path, rng: Random) -> str:
    """A cell of a CSV table, or the number of cells in a row."""
    rows = list(csv.reader(io.StringIO(path.read_text())))
    row = rng.choice(rows)
    cell = rng.randrange(len(row))
    way = rng.choice(("odd", "odd", "gone", "more", "quote"))
    if way == "odd":
        row[cell] = str(rng.choice([value for value in ODD if value != "\ud800"]))
    elif way == "gone":
        del row[cell]
    elif way == "more":
        row.append("one more")
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue() if way != "quote" else text.getvalue().replace('"', "", 1))
    return way


def in_members(path: Path, rng: Random) -> str:
    """The members of a tar: their names, their number, their JSON."""
    with tarfile.open(path) as tar:
        members = [(member.name, file.read()) for member in tar if (file := tar.extractfile(member))]
    at = rng.randrange(len(members))
    name, data = members[at]
    way = rng.choice(("outside", "absolute", "gone", "twice", "swapped", "json", "bytes", "renamed"))
    if way in ("outside", "absolute", "renamed"):
        new = {"outside": f"../../escaped-{name}", "absolute": f"/absolute-{name}", "renamed": f"other.{name}"}[way]
        members[at] = (new, data)
    elif way == "gone":
        del members[at]
    elif way == "twice":
        members.insert(at, members[at])
    elif way == "swapped":
        rng.shuffle(members)
    elif way == "json" and name.endswith(".json"):
        tree, how = twist(json.loads(data), rng)
        members[at], way = (name, json.dumps(tree).encode()), f"json {how}"
    else:
        members[at] = (name, damage(data, rng)[0])
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return f"members {way}"


def agreed(way: Damage) -> Damage:
    """With an index that vouches for what was done, as whoever does it on purpose would write it."""

    def done(path: Path, rng: Random) -> str:
        how = way(path, rng)
        index = json.loads((path.parent / "index.json").read_text())
        for shard in index["shards"]:
            if shard["name"] == path.name:
                data = path.read_bytes()
                shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (path.parent / "index.json").write_text(json.dumps(index))
        return f"{how}, index agrees"

    return done


def in_header(path: Path, rng: Random) -> str:
    """The header of a safetensors file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    tree, how = twist(json.loads(data[8 : 8 + size]), rng)
    header = json.dumps(tree).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
    return f"header {how[:60]}"


def in_state(path: Path, rng: Random) -> str:
    """A checkpoint's values, saved again as torch saves them."""
    target = path.resolve()
    state = torch.load(target, weights_only=True)
    way = rng.choice(("top", "tensor", "nan", "gone", "dtype"))
    if way == "top":
        key = rng.choice(list(state))
        state[key] = rng.choice([value for value in ODD if value != "\ud800"])
        way = f"{key} odd"
    else:
        weights = state["state_dict"]
        key = rng.choice(list(weights))
        tensor = weights[key]
        weights[key] = {
            "tensor": tensor[None],
            "nan": torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
            "gone": None,
            "dtype": tensor.to(rng.choice((torch.int8, torch.complex64, torch.bool, torch.float64))),
        }[way]
        way = f"{key} {way}"
    torch.save(state, target)
    for beside in target.parent.glob(f"{target.name}.*"):  # a sum that was written with it
        beside.unlink()
    return way
