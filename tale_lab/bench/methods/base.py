"""What a method is: a flow that answers a question; and the registry that names methods.

A new method is a class with a name, a source and a flow::

    @register_method
    class Telegram(Method):
        name = "telegram"
        source = "our own"

        def answer(self, question: str) -> Flow[Said]:
            reply = yield ask(question, after="Answer in the style of a telegram.")
            return Said(text=reply.text)

Fields of the class are its settings; they are part of the key under which its answers are kept.
"""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import BeforeValidator

from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityEvent
from tale_core.types import Flow, Framing, Message, ModelCall, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Self

    from tale_core.method.calibration import Calibration
    from tale_core.protocols import Estimator
    from tale_core.types import ChooseControl, Role


FIRST_NAMES = {"tale-calibration": "tale-profile", "vanilla-retry": "vanilla-second-try"}
"""First names of renamed methods: keys of kept answers were made of them, and users may still type them."""

_FORMER = {first: name for name, first in FIRST_NAMES.items()}

MethodName: TypeAlias = Annotated[str, BeforeValidator(lambda name: _FORMER.get(name, name))]
"""A method's label; results files may hold a former name of it."""


class Said(Record):
    """What a method answered."""

    text: str
    events: tuple[ElasticityEvent, ...] = ()
    """What departed from the plan, for methods that work under a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the methods of one run may draw on; the same for all of them."""

    calibration: Calibration | None = None
    """What was measured about the model; None where nothing was."""
    estimator: Estimator | None = None
    """An estimator fitted beforehand; None where there is none."""
    control: ChooseControl | None = None
    """Decides which native parameter carries a budget; None for models that have none."""
    efforts: Sequence[str] = ()
    """Effort levels that the model accepts, lowest first."""


class Method(Record, ABC):
    """Answers questions in one way; its fields are its settings."""

    name: ClassVar[str]
    """The name under which it is registered and reported."""
    source: ClassVar[str]
    """Who proposed it, and where its prompts are from."""

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method for a run.

        Raises:
            InvalidValueError: The run lacks something that the method needs.
        """
        del conditions  # most methods need none
        return cls()

    @classmethod
    def configured(cls, argument: str) -> type[Method]:
        """Return the method with the settings that a name carries after a colon, as in ``tale:words@80``.

        Raises:
            InvalidValueError: The method takes no settings, or the settings are invalid.
        """
        raise InvalidValueError(
            f"{cls.name!r} takes no settings in its name, got {argument!r}; write {cls.name}"
        )

    @property
    def label(self) -> str:
        """What the method is called in reports."""
        return self.name

    @property
    def most_calls(self) -> int:
        """Upper bound of the model calls of one answer; the bound on a run's cost follows from it."""
        return 1

    @abstractmethod
    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer to one question.

        Returns:
            A flow that yields every call it needs, and returns what was said.
        """

    def settings(self) -> dict[str, Any]:
        """Return everything that decides its calls, JSON-ready: a part of the key of its answers."""
        return self.model_dump(mode="json")


def ask(
    question: str,
    *,
    system: str = "",
    examples: Iterable[tuple[str, str]] = (),
    before: str = "",
    after: str = "",
    role: Role = "reason",
) -> ModelCall:
    """Return the call that asks a question in a fixed wording.

    Args:
        question: The question.
        system: The system message; empty for none.
        examples: Worked examples, each a question and its answer, shown as turns of the conversation.
        before: Text before the question; a blank line is put between.
        after: Text after the question; a blank line is put between.
        role: What the call is for.
    """
    framing = Framing(
        examples=tuple(
            Message(role=role, content=text)
            for shown in examples
            for role, text in zip(("user", "assistant"), shown, strict=True)
        ),
        before=f"{before}\n\n" if before else "",
        after=f"\n\n{after}" if after else "",
    )
    head = (Message(role="system", content=system),) if system else ()
    return ModelCall(role=role, messages=(*head, *framing.messages(question)))


M = TypeVar("M", bound=type[Method])

_methods: dict[str, type[Method]] = {}


def register_method(method: M, *, replace: bool = False) -> M:
    """Add a method to the registry under its name; a class decorator.

    Raises:
        InvalidValueError: The name is taken and ``replace`` is False.
    """
    if method.name in _methods and not replace:
        raise InvalidValueError(f"a method named {method.name!r} exists; pass replace=True to replace it")
    _methods[method.name] = method
    return method


def method_names() -> tuple[str, ...]:
    """Return the names of all registered methods, in the order of their registration."""
    return tuple(_methods)


def get_method(name: str) -> type[Method]:
    """Return a registered method by name, or one of your own as ``module:Class``.

    Args:
        name: A name in `method_names`, with settings after a colon where the method takes some
            (``tale:exemplars@120``: that strategy, that budget), or the import path of a class.

    Raises:
        InvalidValueError: There is no such method.
    """
    name = _FORMER.get(name, name)
    head, colon, argument = name.partition(":")
    if colon and head in _methods:
        return _methods[head].configured(argument)
    if colon:
        return _imported(name)
    try:
        return _methods[name]
    except KeyError:
        near = difflib.get_close_matches(name, _methods, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidValueError(
            f"no method named {name!r}; {hint}known: {', '.join(_methods)}; or name a class as module:Class"
        ) from None


def _imported(name: str) -> type[Method]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise InvalidValueError(
            f"cannot import the method {name!r}: {exc}; name it as module:Class, with the module on the path"
        ) from exc
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InvalidValueError(f"{name!r} is no subclass of tale_lab.bench.methods.Method: {found!r}")
    # Reports quote both.
    unsaid = [attribute for attribute in ("name", "source") if not hasattr(found, attribute)]
    if unsaid:
        raise InvalidValueError(
            f"the method {name!r} must say its {' and its '.join(unsaid)}, as class attributes"
        )
    return found
