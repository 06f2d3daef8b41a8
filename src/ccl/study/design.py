"""Who is shown what: pairs of systems on rows, shares of raters, sides and order, and checks of their attention.

Every rater gets a part: a list of showings in an order and with sides of its own. Over a study each row, each pair of
systems and each comparison comes equally often, as near as whole numbers allow; within a part two systems stand one way
round as often as the other. What is drawn follows from the study's seed and what it is for.

R rows, P pairs of systems, N parts of M comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import lcm

import numpy as np

from ccl.rng import seed_of

SAME, SHUFFLED = (
    "same",
    "shuffled",
)  # kinds of checks: one clip twice; a true clip against its pictures with other sound

TRUE = "true"  # the side of the second kind that is right


@dataclass(frozen=True)
class Trial:
    """Two clips that are compared.

    Args:
        row: id of the row that both are of.
        sides: what each clip is: the names of two systems, or what a check makes of one.
        clips: their names in the page, in the same order.
        check: SAME or SHUFFLED; "" of a comparison that counts.
    """

    row: str
    sides: tuple[str, str]
    clips: tuple[str, str] = ("", "")
    check: str = ""

    def turned(self) -> Trial:
        """The same, its second clip first."""
        return replace(self, sides=self.sides[::-1], clips=self.clips[::-1])


@dataclass(frozen=True)
class Showing:
    """A trial, by its place, as a part has it: as it stands there, or the other way round."""

    trial: int
    flipped: bool


def drawn(seed: int, *what: object) -> np.random.Generator:
    """Randomness of the study for one thing."""
    return np.random.default_rng(seed_of("study", seed, *what))


def compared(methods: Sequence[str], rows: Sequence[str], count: int | None, seed: int) -> list[Trial]:
    """Comparisons in an order of which every beginning is balanced over rows and over pairs of systems.

    Rows and pairs are gone through side by side; where both begin anew together, the pairs move on by one, so that
    after R * P steps each row has had each pair once.

    Args:
        methods: at least two.
        rows: ids.
        count: of comparisons; None is every pair on every row.
        seed: of the study.

    Raises:
        ValueError: there are fewer.
    """
    pairs = list(combinations(methods, 2))
    most = len(rows) * len(pairs)
    if count is not None and count > most:
        raise ValueError(f"there are {most} comparisons, {len(pairs)} of systems on {len(rows)} rows, not {count}")
    rows = [rows[place] for place in drawn(seed, "rows").permutation(len(rows))]
    pairs = [pairs[place] for place in drawn(seed, "pairs").permutation(len(pairs))]
    both = lcm(len(rows), len(pairs))
    return [Trial(rows[k % len(rows)], pairs[(k + k // both) % len(pairs)]) for k in range(count or most)]


def parts(trials: Sequence[Trial], raters: int, each: int | None, seed: int) -> list[list[Showing]]:
    """Of N raters the showings of each.

    Args:
        trials: comparisons as `compared` orders them, and after them checks, which every rater gets.
        raters: how many parts.
        each: comparisons in a part; None is all.
        seed: of the study.

    Raises:
        ValueError: there are fewer comparisons than a part is to hold.
    """
    plain = [place for place, trial in enumerate(trials) if not trial.check]
    checks = [place for place, trial in enumerate(trials) if trial.check]
    each = len(plain) if each is None else each
    if each > len(plain):
        raise ValueError(f"a rater cannot get {each} of {len(plain)} comparisons")
    made, shown = [], Counter[tuple[int, bool]]()
    for number in range(raters):
        rng = drawn(seed, "part", number)
        here = Counter[tuple[tuple[str, str], bool]]()
        showings = []
        for step in range(number * each, (number + 1) * each):
            place = plain[step % len(plain)]
            flipped = _side(trials[place].sides, place, here, shown, rng)
            showings.append(Showing(place, flipped))
        showings += [Showing(place, bool(rng.integers(2))) for place in checks]
        made.append([showings[place] for place in rng.permutation(len(showings))])
    return made


def disguised(
    trials: Sequence[Trial], parts: Sequence[Sequence[Showing]], seed: int
) -> tuple[list[Trial], list[list[Showing]]]:
    """The same showings of trials whose places and first sides tell nothing: no system comes first more often."""
    rng = drawn(seed, "disguise")
    old, turned = rng.permutation(len(trials)), rng.integers(2, size=len(trials)).astype(bool)
    new = {int(place): number for number, place in enumerate(old)}
    hidden = [trials[place].turned() if turned[place] else trials[place] for place in old]
    return hidden, [[Showing(new[s.trial], s.flipped ^ bool(turned[s.trial])) for s in part] for part in parts]


def _side(sides: tuple[str, str], place: int, here: Counter, shown: Counter, rng: np.random.Generator) -> bool:
    """Whether the second system stands on the left: what this rater's part lacks, else what the comparison lacks."""
    owed = here[sides, False] - here[sides, True] or shown[place, False] - shown[place, True]
    flipped = owed > 0 if owed else bool(rng.integers(2))
    here[sides, flipped] += 1
    shown[place, flipped] += 1
    return flipped
