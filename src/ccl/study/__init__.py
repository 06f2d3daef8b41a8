"""Studies with people: blind pairs of clips on a page that needs no server, and what raters' answers say.

`make` writes a page and its key, `read_answers` reads what raters saved, `found` says what it means.
"""

from ccl.study.answers import Answer, read_answers
from ccl.study.findings import Findings, found
from ccl.study.key import Key, read_key
from ccl.study.make import Order, make
from ccl.study.questions import QUESTIONS, questions_of

__all__ = [
    "QUESTIONS",
    "Answer",
    "Findings",
    "Key",
    "Order",
    "found",
    "make",
    "questions_of",
    "read_answers",
    "read_key",
]
