"""One question under way: planned, asked, settled (arXiv 2412.18547, section 4)."""

from __future__ import annotations

import functools
import operator
import warnings
from typing import TYPE_CHECKING, Any

from tale_core.accounts.tokens import estimate_usage, usage_of
from tale_core.errors import (
    BudgetOverrunError,
    CollapsedAnswerError,
    InvalidValueError,
    PolicyViolationError,
    SlippedAnswerError,
    TruncatedAnswerError,
)
from tale_core.events import BudgetEvent, ElasticityEvent, ElasticityKind, Journal, UsageEvent
from tale_core.flows import observed
from tale_core.method.arithmetic import find_slips
from tale_core.method.elasticity import observe
from tale_core.models.reasoning_controls import prompt_control
from tale_core.prompts.strategies import correction
from tale_core.types import (
    Budget,
    ChooseControl,
    ControlSetting,
    Estimate,
    Flow,
    Framing,
    ModelCall,
    ModelReply,
    Record,
    Role,
    SelfBudgeting,
    Usage,
)

if TYPE_CHECKING:
    from tale_core.method.method import TaleMethod

_RETRY_FACTOR = 2
_SELF = "self"
_NO_BUDGET = Budget()
_UNFRAMED = Framing()


class Plan(Record):
    """One question with its budget: all that the visible call needs."""

    question: str
    """The question, unframed."""
    budget: Budget
    """The budget that the framing or a reasoning control carries."""
    framing: Framing
    """What goes around the question."""
    strategy: str
    """Name of the prompt strategy."""
    reasons: bool = True
    """Whether the prompt asks for reasoning."""
    setting: ControlSetting | None = None
    """The control that carries the budget; None without a budget."""
    attempt: int = 1
    """1 for the first asking, 2 for the first retry, ..."""

    def call(self) -> ModelCall:
        """Return the model call for drivers that have no conversation of their own."""
        return ModelCall(
            role="reason",
            messages=self.framing.messages(self.question),
            framing=self.framing,
            budget=self.budget.tokens,
            setting=self.setting,
        )


class Answer(Record):
    """An answer with its accounts."""

    plan: Plan
    """How the question was asked, the last time it was."""
    reply: ModelReply
    """The model's reply."""
    reason_usage: Usage
    """What this reply cost; earlier attempts are in the ledger."""
    estimate_usage: Usage | None
    """What estimating cost; None when no call was made."""
    observed: tuple[ElasticityEvent, ...]
    """What this reply alone showed."""
    events: tuple[ElasticityEvent, ...]
    """Everything that departed from the plan, estimate and earlier attempts included, in order."""

    def summary(self) -> dict[str, Any]:
        """Return what adapters attach to their own message: plain, JSON-ready data."""
        estimate = self.estimate_usage
        setting = self.plan.setting
        control = None if setting is None else setting.control
        value = None if setting is None else setting.value
        why = "" if setting is None else setting.why
        return {
            "budget": self.plan.budget.tokens,
            "source": self.plan.budget.source,
            "estimate": self.plan.budget.estimate,
            "strategy": self.plan.strategy,
            "style": self.plan.strategy,  # the former names stay: keys are only ever added
            "reasoning_control": control,
            "reasoning_control_value": value,
            "reasoning_control_why": why,
            "lever": control,
            "lever_value": value,
            "lever_why": why,
            "attempts": self.plan.attempt,
            "estimate_usage": None if estimate is None else dict(vars(estimate)),
            "reason_usage": dict(vars(self.reason_usage)),
            "events": [
                event.model_dump(mode="json", exclude={"question_id"}, exclude_defaults=True)
                for event in self.events
            ],
        }


class QuestionRun:
    """One question under way; made by `TaleMethod.begin`."""

    def __init__(
        self,
        method: TaleMethod,
        question: str,
        *,
        question_id: str = "",
        shown: str | None = None,
        context: str | None = None,
        control: ChooseControl | None = None,
        journaled: bool = True,
    ) -> None:
        self.method = method
        self.control = prompt_control if control is None else control
        self.question = question
        self.shown = question if shown is None else shown
        self.context = question if context is None else context
        self.question_id = question_id
        self.journaled = journaled
        self.journal: Journal = []
        """Events not yet taken by the adapter, in order."""
        self._events: list[ElasticityEvent] = []
        self._estimates: list[tuple[ModelCall, ModelReply]] = []

    def drain(self) -> Journal:
        """Take the events recorded since the last time."""
        taken, self.journal = self.journal, []
        return taken

    def plan(self) -> Flow[Plan]:
        """Estimate, and return how to ask. Makes no call that the user sees."""
        budget = _NO_BUDGET
        if self.question.strip():
            if self.method.strategy.budgeted:
                budget = yield from self._budget()
            elif isinstance(self.method.strategy, SelfBudgeting):
                budget = Budget(source=_SELF)
        return self._planned(budget, attempt=1)

    def answer(self) -> Flow[Answer]:
        """Estimate, ask, and ask again where the policy says so.

        Raises:
            BudgetOverrunError: The answer overran and the policy says raise.
            CollapsedAnswerError: The answer is bare and the policy says raise.
            TruncatedAnswerError: The answer was cut or empty and the policy says raise.
            SlippedAnswerError: A calculation in it does not come out and the policy says raise.
        """
        plan = yield from self.plan()
        return (yield from self.asked(plan))

    def asked(self, plan: Plan) -> Flow[Answer]:
        """Ask as planned, and again where the policy says so; see `answer`.

        Args:
            plan: How to ask.
        """
        while True:
            reply = yield plan.call()
            answer = self.settle(plan, reply)
            again = self.react(answer)
            if again is None:
                return answer
            plan = again

    def under(self, budget: Budget) -> Plan:
        """Return how to make a further call for the question, under the budget that was chosen for its first.

        Args:
            budget: That budget; nothing is estimated or noted again.
        """
        return self._asked_under(budget, attempt=1)

    def settle(self, plan: Plan, reply: ModelReply) -> Answer:
        """Record what the visible call cost and what it showed.

        Args:
            plan: How the question was asked.
            reply: The model's reply; without a usage, one is estimated and marked so.
        """
        usage = reply.usage
        if usage is None:
            usage = estimate_usage(plan.call().messages, reply.text)
        plan = self._stated(plan, reply)
        self._note_usage("reason", usage, reply, plan)
        observations = observe(
            reply,
            usage,
            budget=plan.budget.tokens,
            policy=self.method.policy,
            reasons=plan.reasons,
            question_id=self.question_id,
            curve=self.method.curve,
        )
        for event in observations:
            self._note_event(event)
        if reply.complete:
            self._teach(plan, usage, observations)
        return Answer(
            plan=plan,
            reply=reply,
            reason_usage=Usage(source=usage.source) if reply.cached else usage,
            estimate_usage=self.estimate_cost(),
            observed=observations,
            events=tuple(self._events),
        )

    def react(self, answer: Answer) -> Plan | None:
        """Return how to ask again where the policy says retry; None when the answer stands.

        Raises:
            BudgetOverrunError: The answer overran and the policy says raise.
            CollapsedAnswerError: The answer is bare and the policy says raise.
            TruncatedAnswerError: The answer was cut or empty and the policy says raise.
            SlippedAnswerError: A calculation in it does not come out and the policy says raise.
        """
        if not answer.observed:
            return None
        self.enforce(answer)
        policy, plan = self.method.policy, answer.plan
        if plan.attempt > policy.retries:
            return None
        retried = {event.kind for event in answer.observed if policy.action(event.kind) == "retry"}
        budget = plan.budget
        cut = not retried.isdisjoint({ElasticityKind.TRUNCATED, ElasticityKind.COLLAPSE})
        if cut and budget.tokens is not None and budget.source != _SELF:
            return self._replanned(plan, None)
        if ElasticityKind.SLIP in retried:
            return self._put_right(plan, answer.reply.text)
        if ElasticityKind.OVERRUN in retried and budget.tokens is not None:
            return self._relaxed(plan, budget.tokens * _RETRY_FACTOR)
        return None

    def portion(self, plan: Plan, share: float) -> Plan:
        """Return how to make one of several calls that answer the question together.

        Args:
            plan: How the question is asked as a whole.
            share: The call's part of the budget; never less than the policy's floor, since below it answers
                collapse or grow again.
        """
        whole = plan.budget.tokens
        if whole is None:
            return plan
        tokens = max(round(whole * share), min(whole, self.method.policy.floor))
        budget = plan.budget.model_copy(update={"tokens": tokens})
        return self._asked_under(budget, attempt=plan.attempt)

    def estimate_cost(self) -> Usage | None:
        """Return what estimating cost: all measured, or all by the tokenizer, never a mixture.

        Returns:
            The total of the estimator's calls; None when it made none.
        """
        if not self._estimates:
            return None
        usages = [reply.usage for _, reply in self._estimates if reply.usage is not None]
        if len(usages) < len(self._estimates) or any(usage.source == "estimated" for usage in usages):
            usages = [estimate_usage(call.messages, reply.text) for call, reply in self._estimates]
        return functools.reduce(operator.add, usages)

    def enforce(self, answer: Answer) -> None:
        """Raise what the policy raises for an answer; all of `react` that suits an answer already streamed.

        Raises:
            BudgetOverrunError: The answer overran and the policy says raise.
            CollapsedAnswerError: The answer is bare and the policy says raise.
            TruncatedAnswerError: The answer was cut or empty and the policy says raise.
            SlippedAnswerError: A calculation in it does not come out and the policy says raise.
        """
        for event in answer.observed:
            if self.method.policy.action(event.kind) == "raise":
                raise _violation(event.kind, answer)

    def _budget(self) -> Flow[Budget]:
        estimate = yield from self._estimate()
        budget, kind = self.method.policy.decide(estimate)
        if kind is not None:
            self._note_event(
                ElasticityEvent(
                    question_id=self.question_id,
                    kind=kind,
                    budget=budget.tokens,
                    estimate=estimate.tokens,
                    detail=estimate.detail,
                )
            )
        return budget

    def _estimate(self) -> Flow[Estimate]:
        estimator = self.method.estimator
        try:
            estimate = yield from observed(estimator.estimate(self.context), self._note_estimate)
        except Exception as exc:
            if self.method.policy.on_estimator_error == "raise":
                raise
            return Estimate(source=estimator.name, detail=f"the estimator raised {type(exc).__name__}")
        if not isinstance(estimate, Estimate):
            raise InvalidValueError(
                f"an estimator's flow returns an Estimate; {estimator!r} returned {estimate!r}"
            )
        return estimate

    def _stated(self, plan: Plan, reply: ModelReply) -> Plan:
        """Return the plan with the budget that the model stated, where it was left to the model."""
        strategy = self.method.strategy
        if not _left_to_model(plan.budget) or not isinstance(strategy, SelfBudgeting):
            return plan
        tokens = strategy.stated_budget(reply.text)
        if tokens is not None:
            budget = Budget(tokens=tokens, source=_SELF, estimate=tokens)
            plan = plan.model_copy(update={"budget": budget})
        self._note_budget(plan)
        if tokens is None and reply.complete:
            self._note_event(
                ElasticityEvent(
                    question_id=self.question_id,
                    kind=ElasticityKind.UNPARSABLE,
                    detail="the answer states no budget",
                )
            )
        return plan

    def _teach(self, plan: Plan, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        learner = self.method.learner
        if learner is None:
            return
        try:
            learner.learn(self.context, plan.budget, usage, events)
        except Exception as exc:  # noqa: BLE001  # the answer is paid for; what failed only looks at it
            warnings.warn(
                f"{learner.name} could not learn from an answer: {type(exc).__name__}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _note_estimate(self, call: ModelCall, reply: ModelReply) -> None:
        if not reply.cached:
            self._estimates.append((call, reply))
        usage = usage_of(call, reply)
        self._note_usage(call.role, usage, reply)

    def _note_usage(self, role: Role, usage: Usage, reply: ModelReply, plan: Plan | None = None) -> None:
        if not self.journaled:
            return
        self.journal.append(
            UsageEvent(
                question_id=self.question_id,
                role=role,
                usage=Usage(source=usage.source) if reply.cached else usage,
                budget=None if plan is None else plan.budget.tokens,
                strategy=None if plan is None else plan.strategy,
                model=reply.model,
                finish_reason=reply.finish_reason,
                seconds=reply.seconds,
            )
        )

    def _note_event(self, event: ElasticityEvent) -> None:
        self._events.append(event)
        self.journal.append(event)

    def _planned(self, budget: Budget, *, attempt: int) -> Plan:
        plan = self._asked_under(budget, attempt=attempt)
        if not _left_to_model(budget):
            self._note_budget(plan)
        return plan

    def _asked_under(self, budget: Budget, *, attempt: int) -> Plan:
        strategy = self.method.strategy
        framing = _UNFRAMED
        setting = None if budget.tokens is None else self.control(budget.tokens)
        native = setting is not None and setting.native
        if self.question.strip() and not native:
            framing = strategy.frame(self.question, budget.tokens, language=self.method.language)
        return Plan(
            question=self.shown,
            budget=budget,
            framing=framing,
            strategy=strategy.name,
            reasons=strategy.reasons and not native,
            setting=setting,
            attempt=attempt,
        )

    def _note_budget(self, plan: Plan) -> None:
        if not self.journaled:
            return
        setting = plan.setting
        self.journal.append(
            BudgetEvent(
                question_id=self.question_id,
                budget=plan.budget.tokens,
                source=plan.budget.source,
                estimate=plan.budget.estimate,
                strategy=plan.strategy,
                control=None if setting is None else setting.control,
                control_value=None if setting is None else setting.value,
                control_why="" if setting is None else setting.why,
            )
        )

    def _relaxed(self, plan: Plan, tokens: int) -> Plan | None:
        """Plan a retry with more room; None where the reasoning control would stay as it is."""
        before = plan.setting
        if before is not None and before.native and self.control(tokens).value == before.value:
            return None
        return self._replanned(plan, tokens)

    def _put_right(self, plan: Plan, text: str) -> Plan:
        """Plan a retry that says what the answer's calculations come to, right after the question."""
        budget = Budget(source=_SELF) if plan.budget.source == _SELF else plan.budget
        again = self._planned(budget, attempt=plan.attempt + 1)
        put_right = [slip.put_right() for slip in find_slips(text)]
        note = correction(put_right, self.question, language=self.method.language)
        framing = again.framing.model_copy(update={"after": f"\n\n{note}{again.framing.after}"})
        return again.model_copy(update={"framing": framing})

    def _replanned(self, plan: Plan, tokens: int | None) -> Plan:
        budget = Budget(tokens=tokens, source="retry", estimate=plan.budget.estimate)
        return self._planned(budget, attempt=plan.attempt + 1)


def _left_to_model(budget: Budget) -> bool:
    """Return whether the model is to state the budget itself, in its answer."""
    return budget.tokens is None and budget.source == _SELF


def _violation(kind: ElasticityKind, answer: Answer) -> PolicyViolationError:
    actual, budget = answer.reason_usage.output_tokens, answer.plan.budget.tokens
    if kind is ElasticityKind.TRUNCATED:
        return TruncatedAnswerError(
            f"the answer was cut or is empty after {actual} output tokens (budget {budget}); raise the "
            "model's own output limit, or set on_truncation='retry' or 'record'",
            text=answer.reply.text,
        )
    if kind is ElasticityKind.COLLAPSE:
        return CollapsedAnswerError(
            f"the answer is bare: {actual} output tokens with a budget of {budget}; raise the policy's floor, "
            "or set on_collapse='retry' or 'record'",
            text=answer.reply.text,
        )
    if kind is ElasticityKind.SLIP:
        return SlippedAnswerError(
            f"a calculation in the answer does not come out ({actual} output tokens, budget {budget}); raise "
            "the budget, or set on_slip='retry' or 'record'",
            text=answer.reply.text,
        )
    return BudgetOverrunError(
        f"the answer took {actual} output tokens with a budget of {budget}; raise the budget or the "
        "tolerance, or set on_overrun='retry' or 'record'",
        text=answer.reply.text,
    )
