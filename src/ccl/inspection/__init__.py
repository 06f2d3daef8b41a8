"""Seeing inside a model: what it attends to, who sees whom, what its windows do, and what its prompts are worth."""

from ccl.inspection.words import Worth, worth_of

__all__ = ["Worth", "worth_of"]
