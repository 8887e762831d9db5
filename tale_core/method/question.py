"""One question under way: planned, asked, settled (arXiv 2412.18547, section 4)."""

from __future__ import annotations

import functools
import operator
import warnings
from typing import TYPE_CHECKING, Protocol

from tale_core.errors import InvalidValueError
from tale_core.events import BudgetEvent, ElasticityEvent, ElasticityKind, Event, UsageEvent
from tale_core.flows import observed
from tale_core.method.plan import SELF, Answer, Plan, observe
from tale_core.prompts.strategies import correction
from tale_core.protocols import SelfBudgeting
from tale_core.tokens import estimate_usage, usage_of
from tale_core.types import Budget, ControlSetting, Estimate, Framing, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.method.calibration import CalibrationPoint
    from tale_core.method.policy import BudgetPolicy
    from tale_core.protocols import Estimator, Learner, Strategy
    from tale_core.types import ChooseControl, Flow, ModelCall, ModelReply, Role

# A budget below the model's elastic range costs more than a larger one, so a retry doubles it.
_RETRY_FACTOR = 2
# Built once: validating a record takes longer than anything else in a question without a budget.
_NO_BUDGET = Budget()
_NO_FRAMING = Framing()
_PROMPT = ControlSetting(control="prompt")


class _Choices(Protocol):
    """What a question needs to know of the method; `TaleMethod` has it."""

    @property
    def estimator(self) -> Estimator: ...
    @property
    def learner(self) -> Learner | None: ...
    @property
    def policy(self) -> BudgetPolicy: ...
    @property
    def strategy(self) -> Strategy: ...
    @property
    def language(self) -> str: ...
    @property
    def curve(self) -> Sequence[CalibrationPoint]: ...


class QuestionRun:
    """One question under way; made by `TaleMethod.begin`."""

    def __init__(
        self,
        method: _Choices,
        question: str,
        *,
        question_id: str = "",
        shown: str | None = None,
        context: str | None = None,
        control: ChooseControl | None = None,
        record_events: bool = True,
    ) -> None:
        self.method = method
        self.control = control
        self.question = question
        self.shown = question if shown is None else shown
        self.context = question if context is None else context
        self.question_id = question_id
        self.record_events = record_events
        self.events: list[Event] = []
        """Events not yet taken by the adapter, in order."""
        self._departures: list[ElasticityEvent] = []
        self._estimates: list[tuple[ModelCall, ModelReply]] = []

    def drain(self) -> list[Event]:
        """Return the events recorded since the last call, and forget them."""
        taken, self.events = self.events, []
        return taken

    # planning

    def plan(self) -> Flow[Plan]:
        """Estimate, and return how to ask. Makes no call that the user sees."""
        budget = _NO_BUDGET
        if self.question.strip():
            if self.method.strategy.budgeted:
                budget = yield from self._budget()
            elif isinstance(self.method.strategy, SelfBudgeting):
                budget = Budget(source=SELF)
        return self._noted(self.under(budget))

    def under(self, budget: Budget, *, attempt: int = 1) -> Plan:
        """Return how to make a call under a budget that is already chosen; nothing is estimated or recorded.

        Args:
            budget: The budget.
            attempt: 1 for the first call, 2 for the first retry, ...
        """
        strategy = self.method.strategy
        setting = None if budget.tokens is None else self._setting(budget.tokens)
        native = setting is not None and setting.native
        framing = _NO_FRAMING
        # A model that thinks by itself, told to think step by step as well, writes its reasoning twice.
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
        return self.under(budget, attempt=plan.attempt)

    # asking

    def answer(self) -> Flow[Answer]:
        """Estimate, ask, and retry where the policy says so.

        Raises:
            PolicyViolationError: The answer did what the policy says ``raise`` for; see `enforce`.
        """
        plan = yield from self.plan()
        return (yield from self.asked(plan))

    def asked(self, plan: Plan) -> Flow[Answer]:
        """Ask as planned, and retry where the policy says so; see `answer`.

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
            self._note_departure(event)
        if reply.complete:
            self._teach(plan, usage, observations)
        return Answer(
            plan=plan,
            reply=reply,
            reason_usage=Usage(source=usage.source) if reply.cached else usage,
            estimate_usage=self.estimate_cost(),
            observed=observations,
            events=tuple(self._departures),
        )

    def react(self, answer: Answer) -> Plan | None:
        """Return how to retry where the policy says so; None when the answer stands.

        Raises:
            PolicyViolationError: The answer did what the policy says ``raise`` for; see `enforce`.
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
        if cut and budget.tokens is not None and budget.source != SELF:
            return self._retried(plan, None)
        if ElasticityKind.SLIP in retried:
            return self._corrected(plan, answer.reply.text)
        if ElasticityKind.OVERRUN in retried and budget.tokens is not None:
            more = budget.tokens * _RETRY_FACTOR
            before = plan.setting
            # One effort level covers a range of budgets: within it, the retry would be the same call.
            same = before is not None and before.native and self._setting(more).value == before.value
            return None if same else self._retried(plan, more)
        return None

    def enforce(self, answer: Answer) -> None:
        """Raise what the policy raises for an answer: the part of `react` that suits a streamed answer.

        Raises:
            BudgetOverrunError: The answer overran and the policy says raise.
            CollapsedAnswerError: The answer is bare and the policy says raise.
            TruncatedAnswerError: The answer was cut or empty and the policy says raise.
            SlippedAnswerError: A calculation in it is wrong and the policy says raise.
        """
        for event in answer.observed:
            if self.method.policy.action(event.kind) == "raise":
                raise answer.violation(event.kind)

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

    def _budget(self) -> Flow[Budget]:
        estimate = yield from self._estimate()
        budget, kind = self.method.policy.decide(estimate)
        if kind is not None:
            self._note_departure(
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

    def _setting(self, tokens: int) -> ControlSetting:
        return _PROMPT if self.control is None else self.control(tokens)

    def _stated(self, plan: Plan, reply: ModelReply) -> Plan:
        """Return the plan with the budget that the model stated, where it was left to the model."""
        strategy = self.method.strategy
        if not plan.left_to_model or not isinstance(strategy, SelfBudgeting):
            return plan
        tokens = strategy.stated_budget(reply.text)
        if tokens is not None:
            budget = Budget(tokens=tokens, source=SELF, estimate=tokens)
            plan = plan.model_copy(update={"budget": budget})
        self._note_budget(plan)
        if tokens is None and reply.complete:
            self._note_departure(
                ElasticityEvent(
                    question_id=self.question_id,
                    kind=ElasticityKind.UNPARSABLE,
                    detail="the answer states no budget",
                )
            )
        return plan

    def _corrected(self, plan: Plan, text: str) -> Plan:
        """Plan a retry that states the right results of the answer's calculations, right after the question."""
        from tale_core.method.arithmetic import find_slips  # noqa: PLC0415  # few policies ask for it

        budget = Budget(source=SELF) if plan.budget.source == SELF else plan.budget
        again = self._noted(self.under(budget, attempt=plan.attempt + 1))
        sums = [slip.put_right() for slip in find_slips(text)]
        note = correction(sums, self.question, language=self.method.language)
        framing = again.framing.model_copy(update={"after": f"\n\n{note}{again.framing.after}"})
        return again.model_copy(update={"framing": framing})

    def _retried(self, plan: Plan, tokens: int | None) -> Plan:
        budget = Budget(tokens=tokens, source="retry", estimate=plan.budget.estimate)
        return self._noted(self.under(budget, attempt=plan.attempt + 1))

    def _teach(self, plan: Plan, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        learner = self.method.learner
        if learner is None:
            return
        try:
            learner.learn(self.context, plan.budget, usage, events)
        except Exception as exc:  # noqa: BLE001  # the answer is paid for; learning from it is optional
            warnings.warn(
                f"{learner.name} could not learn from an answer: {type(exc).__name__}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _noted(self, plan: Plan) -> Plan:
        """Record the plan's budget, except where the model has yet to state it."""
        if not plan.left_to_model:
            self._note_budget(plan)
        return plan

    def _note_budget(self, plan: Plan) -> None:
        if not self.record_events:
            return
        setting = plan.setting
        self.events.append(
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

    def _note_estimate(self, call: ModelCall, reply: ModelReply) -> None:
        if not reply.cached:
            self._estimates.append((call, reply))
        self._note_usage(call.role, usage_of(call, reply), reply)

    def _note_usage(self, role: Role, usage: Usage, reply: ModelReply, plan: Plan | None = None) -> None:
        if not self.record_events:
            return
        self.events.append(
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

    def _note_departure(self, event: ElasticityEvent) -> None:
        self._departures.append(event)
        self.events.append(event)
