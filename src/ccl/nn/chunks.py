"""A batch as equal, consecutive chunks: training terms or guidance passes that run together and see different things.

Plain loops, which torch.compile can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

Tree = TypeVar("Tree")
Key = TypeVar("Key")


def runs(keys: Sequence[Key]) -> list[tuple[Key, tuple[int, ...]]]:
    """Each run of equal keys, with the chunks that it spans."""
    found: list[tuple[Key, tuple[int, ...]]] = []
    for i, key in enumerate(keys):
        if found and found[-1][0] == key:
            found[-1] = (key, (*found[-1][1], i))
        else:
            found.append((key, (i,)))
    return found


def chosen(tree: Tree, which: Sequence[int], of: int) -> Tree:
    """The rows of some chunks, in every tensor of a tree of tuples and dicts.

    Args:
        tree: of tensors (b, ...) and None.
        which: chunks, ascending.
        of: how many the batch has.
    """
    return tree if len(which) == of else _chosen(tree, which, of)


def _chosen(tree: Any, which: Sequence[int], of: int) -> Any:
    if isinstance(tree, Tensor):
        size = len(tree) // of
        if which[-1] - which[0] == len(which) - 1:
            return tree.narrow(0, which[0] * size, len(which) * size)
        return torch.cat([tree.narrow(0, i * size, size) for i in which])
    if isinstance(tree, dict):
        return {key: _chosen(each, which, of) for key, each in tree.items()}
    if isinstance(tree, tuple):
        parts = [_chosen(each, which, of) for each in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree


def repeated(tree: Tree, count: int) -> Tree:
    """Every tensor of a tree `count` times over, one copy a chunk."""
    return tree if count == 1 else tree_map_only(Tensor, lambda x: torch.cat([x] * count), tree)


def joined(trees: Sequence[Tree]) -> Tree:
    """Trees of the same shape, the rows of each behind those of the one before."""
    if len(trees) == 1:
        return trees[0]
    return tree_map(lambda *xs: torch.cat(xs) if isinstance(xs[0], Tensor) else xs[0], *trees)


def put(x: Tensor, new: Tensor, which: Sequence[int], of: int) -> Tensor:
    """x with the rows of some chunks replaced."""
    size, parts = len(x) // of, []
    for i in range(of):
        source, row = (new, list(which).index(i)) if i in which else (x, i)
        parts.append(source.narrow(0, row * size, size))
    return torch.cat(parts)
