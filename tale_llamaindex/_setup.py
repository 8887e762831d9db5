"""What every wrapper here is configured with, an LLM and the method, and how a flow's calls are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.llms import LLM
from llama_index.core.settings import Settings

from tale_core.errors import InvalidValueError, MissingExtraError, NotAChatModelError, UnknownModelError
from tale_core.flows import arun, run, turn
from tale_core.method.method import MethodOptions, TaleMethod, current_options
from tale_core.models.client import only_model
from tale_core.models.model_strings import FORMS, Endpoint, ModelString, resolve_model
from tale_llamaindex._convert import Gathering, to_messages
from tale_llamaindex._observer import watch
from tale_llamaindex._tracking import Question, noted
from tale_llamaindex.reasoning_controls import ModelControls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.llms.types import ChatMessage

    from tale_core.protocols import Estimator
    from tale_core.types import ChooseControl, Flow, ModelCall, ModelReply, T


LLMLike: TypeAlias = LLM | str | None
"""An LLM; a model string such as ``"local"``, ``"openai:gpt-4o-mini"`` or the URL of an OpenAI-compatible
server (see `tale_core.models.model_strings`); None takes ``Settings.llm``."""

# Without it streams report no usage, and every streamed call would be an estimate.
_STREAM_USAGE = {"stream_options": {"include_usage": True}}
_TIMEOUT = 600.0  # seconds for an answer; a model on a CPU takes its time


class Options(MethodOptions, total=False):
    """The options of all wrappers here: those of `MethodOptions`, and the estimator."""

    estimator: Estimator | LLM | str | int | None
    """An estimator, another LLM or a string that names one, or a number of output tokens; None for the
    calibration's budget, or else the zero-shot estimator on the wrapper's own LLM."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call on an LLM."""

    llm: LLM
    endpoint: str
    """``chat``, ``complete``, ``stream_chat`` or ``stream_complete``; `asend` puts an ``a`` before it."""
    prompt: str | Sequence[ChatMessage]
    kwargs: dict[str, Any]

    def gathering(self) -> Gathering:
        """Return where the answer is gathered."""
        if isinstance(self.prompt, str):
            return Gathering([self.prompt])
        return Gathering([message.content or "" for message in self.prompt])

    def send(self) -> Any:
        """Make the call."""
        return getattr(self.llm, self.endpoint)(self.prompt, **self.kwargs)

    async def asend(self) -> Any:
        """Make the call, asynchronously."""
        return await getattr(self.llm, f"a{self.endpoint}")(self.prompt, **self.kwargs)


@dataclass(frozen=True, slots=True)
class Setup:
    """An LLM and the method to ask it with."""

    llm: LLM
    """Answers."""
    method: TaleMethod
    """How it is asked."""
    reasoner: ModelControls
    """The reasoning controls of the LLM that answers."""
    estimator: ModelControls
    """The reasoning controls of the LLM that estimates; usually the same."""

    @classmethod
    def of(cls, llm: LLM, *, owner: str = "Setup", prompt_only: bool = False, **given: Any) -> Setup:
        """Return the setup for what a caller passed to ``owner``; raises as `TALELLM`.

        A class with ``prompt_only`` leaves the calls to others, so it can put budgets into prompts alone.
        """
        options = current_options(given, owner=owner, also=("estimator",))
        control = options.get("reasoning_control", "auto")
        # Only the code that makes the call can send a parameter with it.
        if prompt_only and control not in {"auto", "prompt"}:
            raise InvalidValueError(
                f"{owner} puts budgets into the prompt, got reasoning_control={control!r}; "
                "wrap the LLM in TALELLM to use the model's own control"
            )
        estimator = options.get("estimator")
        estimator_llm = llm
        if isinstance(estimator, str | LLM):
            estimator_llm, estimator = open_llm(estimator), None
        method = TaleMethod(
            estimator=estimator,
            policy=options.get("policy"),
            strategy=options.get("strategy"),
            language=options.get("language", "auto"),
            calibration=options.get("calibration"),
            model_name=name_of(llm),
        )
        reasoner = ModelControls(llm, control)
        watch()
        # A server that was named stands behind this LLM, not behind another one that estimates.
        return cls(llm, method, reasoner, reasoner if estimator_llm is llm else ModelControls(estimator_llm))

    def begin(self, text: str, *, shown: str | None = None, control: ChooseControl | None = None) -> Question:
        """Start a question; its run id is the span around the current call.

        The estimator sees ``text``; the framing goes around ``shown``, where that is more.
        """
        watch()  # again: applications clear the dispatcher's handlers
        question_id = active_span_id.get() or str(uuid4())
        return Question(self.method.begin(text, question_id=question_id, shown=shown, control=control))

    def plan(self, question: Question) -> Question:
        """Estimate the budget of a question, unless that was done, and return the question."""
        if question.plan is None:
            question.planned(run_flow(question.run.plan(), question, self.quiet_request))
        return question

    async def aplan(self, question: Question) -> Question:
        """Estimate the budget of a question, asynchronously; see `plan`."""
        if question.plan is None:
            question.planned(await arun_flow(question.run.plan(), question, self.quiet_request))
        return question

    def quiet_request(self, call: ModelCall) -> Request:
        """Return the request that answers a flow's own call, an estimate: cold, short, without thinking."""
        llm, kwargs = self.estimator.quieted(call)
        if llm.metadata.is_chat_model:
            return Request(llm, "chat", to_messages(call.messages), kwargs)
        return Request(llm, "complete", "\n\n".join(message.content for message in call.messages), kwargs)

    def describe(self) -> str:
        """Return the setup for a ``repr``, without the keys that an LLM's own shows."""
        llm, method = self.llm, self.method
        return (
            f"{type(llm).__name__}({llm.metadata.model_name!r}), "
            f"estimator={method.estimator.name!r}, strategy={method.strategy.name!r}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what changes the model's answers, in plain values: caches must distinguish two budgets."""
        method = self.method
        return {
            # Its repr, since two estimators of one name may differ in their settings.
            "estimator": repr(method.estimator),
            "estimating_llm": type(self.estimator.llm).__name__,
            "estimating_model": self.estimator.llm.metadata.model_name,
            "policy": method.policy.model_dump(mode="json"),
            "strategy": method.strategy.name,
            "language": method.language,
        }


def run_flow(flow: Flow[T], question: Question, request: Callable[[ModelCall], Request]) -> T:
    """Drive a flow of the question's run; the question accounts for its calls."""

    def respond(call: ModelCall) -> ModelReply:
        question.emit()
        asked = request(call)
        answer = asked.gathering()
        with noted(flow=question):
            answer.take(asked.send())
        return answer.reply(closed=False)

    try:
        return run(flow, respond)
    finally:
        question.emit()


async def arun_flow(flow: Flow[T], question: Question, request: Callable[[ModelCall], Request]) -> T:
    """Drive a flow, asynchronously; see `run_flow`."""

    async def respond(call: ModelCall) -> ModelReply:
        question.emit()
        asked = request(call)
        answer = asked.gathering()
        with noted(flow=question):
            answer.take(await asked.asend())
        return answer.reply(closed=False)

    await turn()
    try:
        return await arun(flow, respond)
    finally:
        question.emit()


# What a user may give as ``llm``.


def open_llm(llm: LLMLike) -> LLM:
    """Return the LLM that a caller meant, see `LLMLike`; raises what `TALELLM` says."""
    if llm is None:
        return Settings.llm
    if isinstance(llm, LLM):
        return llm
    if not isinstance(llm, str):
        raise NotAChatModelError(
            f"expected an LLM, got {type(llm).__name__}; pass an LLM object or a string: {', '.join(FORMS)}"
        )
    endpoint = resolve_model(llm)
    if ModelString.read(llm).kind == "openai":
        return _open_openai(endpoint)
    return _open_server(endpoint)


def name_of(llm: LLM) -> str | None:
    """Return the model's name; None where the LLM has none."""
    name = llm.metadata.model_name
    return None if name == LLMMetadata.model_fields["model_name"].default else name


def _open_openai(endpoint: Endpoint) -> LLM:
    try:
        from llama_index.llms.openai import OpenAI  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai", "llamaindex") from exc
    model = endpoint.model or ""
    try:
        llm = OpenAI(model=model, additional_kwargs=_STREAM_USAGE)
        # An unknown name would fail only when the context window is asked for.
        llm.metadata  # noqa: B018  # looks the model up
    except ValueError as exc:
        raise UnknownModelError(
            f"llama-index-llms-openai does not know {model!r}; check the name, or pass an LLM object"
        ) from exc
    return llm


def _open_server(endpoint: Endpoint) -> LLM:
    try:
        from llama_index.llms.openai_like import OpenAILike  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai_like", "llamaindex") from exc
    temperature = {} if endpoint.temperature is None else {"temperature": endpoint.temperature}
    llm: LLM = OpenAILike(
        model=endpoint.model or only_model(endpoint),
        api_base=endpoint.base_url,
        api_key=endpoint.api_key,
        is_chat_model=True,
        timeout=_TIMEOUT,
        additional_kwargs=_STREAM_USAGE,
        **temperature,
    )
    return llm
