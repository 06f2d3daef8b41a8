"""What each swappable kind promises: one file of clauses a kind, put to every part by the tests and by `ccl check`."""

from ccl.contracts.base import Broken, Clause, Outcome, outcome, outcomes, words
from ccl.contracts.kinds import KINDS, Kind, kind_of

__all__ = ["KINDS", "Broken", "Clause", "Kind", "Outcome", "kind_of", "outcome", "outcomes", "words"]
