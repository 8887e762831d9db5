"""The errors that TALE raises, as one tree.

::

    TaleError
    ├── InvalidValueError (ValueError)     an invalid value: budget 0, floor above ceiling
    │   ├── UnknownStrategyError           a prompt strategy that is not registered
    │   ├── UnknownModelError              a model string that names no known model
    │   └── DataError                      questions that cannot be read or graded
    ├── NotAChatModelError (TypeError)     an object that cannot answer as a chat model
    ├── UnexpectedReplyError (TypeError)   a model answered with something that is not a message
    ├── MissingExtraError (ImportError)    an optional dependency; the message names the pip command
    ├── PolicyViolationError               an answer did what the policy says raise for
    │   ├── BudgetOverrunError             the answer took more tokens than asked for
    │   ├── CollapsedAnswerError           a bare answer where reasoning was asked for
    │   ├── SlippedAnswerError             a calculation in the answer is wrong
    │   └── TruncatedAnswerError           the provider cut the answer, or it is empty
    ├── TokenLimitExceededError            an agent used up the tokens of its run or thread
    ├── EmptyAnswerError                   a model answered nothing in a measurement
    ├── GraderError                        a grader ran out of time or memory, or crashed, over an answer
    ├── SpendingLimitError                 a measurement reached its spending limit
    ├── TrainingError                      training cannot start, or cannot succeed
    ├── StoreError                         a results file that cannot be opened, read or written
    ├── EngineError                        flows cannot run on the chosen engine, or failed there
    ├── UnmeasuredUsageError               a requested figure was not measured
    └── LocalModelError                    the embedded model
        ├── WeightsNotFoundError           no weights found; lists every way to get them
        ├── CorruptWeightsError            a file whose digest is not the published one
        └── ServerError                    a server did not start, does not answer, or broke an answer off
            └── DeadlineError              a call took longer than it may

A model's own exceptions are never wrapped: they reach the caller unchanged.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from typing_extensions import Self

_MOST_CHARACTERS = 80
_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = _MOST_CHARACTERS


class TaleError(Exception):
    """Base of every error that TALE raises."""


class InvalidValueError(TaleError, ValueError):
    """An invalid value; the message shows it and says what is allowed."""

    @classmethod
    def from_validation(cls, owner: str, error: ValidationError) -> Self:
        """Translate pydantic's report into one line per wrong field.

        Args:
            owner: Name of the class that was being built.
            error: What pydantic found.
        """
        lines = []
        for item in error.errors(include_url=False):
            where = ".".join([owner, *(str(part) for part in item["loc"])])
            if item["type"] == "extra_forbidden":
                lines.append(f"{where}: no such field")
            elif item["type"] == "missing":
                lines.append(f"{where}: a value is required")
            elif item["type"] == "value_error":
                # Raised by a check of ours, whose message shows the value already.
                lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
            else:
                lines.append(f"{where}: {item['msg']}, got {_shorten.repr(item['input'])}")
        return cls("; ".join(lines))


class UnknownStrategyError(InvalidValueError):
    """A prompt strategy that is not in the registry."""


class UnknownModelError(InvalidValueError):
    """A model string that names no known model."""


class DataError(InvalidValueError):
    """Questions that cannot be read or graded; the message names the file and the line."""


class NotAChatModelError(TaleError, TypeError):
    """An object that cannot answer as a chat model."""


class UnexpectedReplyError(TaleError, TypeError):
    """A model answered with something that is not a message."""


class MissingExtraError(TaleError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: The import that failed.
        extra: The extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package!r} is not installed; run: pip install 'tale-reasoning[{extra}]'", name=package
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """Return how to rebuild it: pickle would otherwise pass the message as the only argument."""
        return type(self), (self.package, self.extra)


class PolicyViolationError(TaleError):
    """An answer did what the policy says ``raise`` for; the answer itself is in ``text``.

    Args:
        message: What happened, with the figures.
        text: The model's answer: it was paid for, so it is never thrown away.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class BudgetOverrunError(PolicyViolationError):
    """The answer took more tokens than the budget and its tolerance allow."""


class CollapsedAnswerError(PolicyViolationError):
    """The answer is bare although reasoning was asked for."""


class TruncatedAnswerError(PolicyViolationError):
    """The provider cut the answer at its output limit, or the answer is empty."""


class SlippedAnswerError(PolicyViolationError):
    """A calculation in the answer is wrong."""


class TokenLimitExceededError(TaleError):
    """An agent used up the tokens of its run or its thread, and is set to fail then."""


class EmptyAnswerError(TaleError):
    """A model answered nothing in a measurement: a failed call, not a wrong answer."""


class GraderError(TaleError):
    """A grader crashed or ran out of time or memory: the attempt failed, and the answer has no verdict."""


class SpendingLimitError(TaleError):
    """A measurement reached its spending limit; everything answered by then is kept."""


class TrainingError(TaleError):
    """Training cannot start on this model or this machine, or cannot succeed."""


class StoreError(TaleError):
    """A results file that cannot be opened, read or written; nothing already in it is lost."""


class EngineError(TaleError):
    """Flows cannot run on the chosen engine, or failed there with an error that cannot be sent back whole."""


class UnmeasuredUsageError(TaleError):
    """A requested figure rests on calls whose usage no provider reported."""


class LocalModelError(TaleError):
    """Base of the embedded model's errors."""


class WeightsNotFoundError(LocalModelError):
    """No weights were found; the message lists every way to provide them."""


class CorruptWeightsError(LocalModelError):
    """A weights file whose digest is not the published one."""


class ServerError(LocalModelError):
    """A server did not start, does not answer any more, or broke an answer off."""


class DeadlineError(ServerError):
    """A call was cut because it took longer than it may, retries and pauses included."""
