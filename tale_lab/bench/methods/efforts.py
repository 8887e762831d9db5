"""Native effort levels: the plain question, with the model's own reasoning control turned to one level."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tale_core.errors import InvalidValueError
from tale_core.types import ControlSetting
from tale_lab.bench.methods.base import Conditions, Method, Said, ask, register_method

if TYPE_CHECKING:
    from typing_extensions import Self

    from tale_core.types import Flow


class Effort(Method):
    """The plain question at one effort level: a model that thinks by itself is not told to think as well."""

    source: ClassVar[str] = "the provider's reasoning effort"
    level: ClassVar[str]
    """The level, as the provider spells it."""

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method, if the run's model has the level; see `Method.under`."""
        if cls.level not in conditions.efforts:
            known = ", ".join(conditions.efforts) or "none"
            raise InvalidValueError(
                f"{cls.name} needs a model that accepts the effort level {cls.level!r}; known for this one: "
                f"{known}; leave the method out"
            )
        return cls()

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        # Models with effort levels refuse a temperature, most of them at every level.
        setting = ControlSetting(
            control="effort", value=self.level, why=f"method {self.name}", temperature=False
        )
        reply = yield ask(question).model_copy(update={"setting": setting})
        return Said(text=reply.text)


@register_method
class EffortNone(Effort):
    """No thinking."""

    name: ClassVar[str] = "effort-none"
    level: ClassVar[str] = "none"


@register_method
class EffortLow(Effort):
    """Low effort."""

    name: ClassVar[str] = "effort-low"
    level: ClassVar[str] = "low"


@register_method
class EffortMedium(Effort):
    """Medium effort."""

    name: ClassVar[str] = "effort-medium"
    level: ClassVar[str] = "medium"


@register_method
class EffortHigh(Effort):
    """High effort."""

    name: ClassVar[str] = "effort-high"
    level: ClassVar[str] = "high"
