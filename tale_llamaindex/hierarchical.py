"""TALEHierarchicalSynthesizer: a rough summary first, then detail where it is needed."""

# ruff: noqa: SLF001  # what a synthesizer is made of has no public names

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import TreeSummarize

from tale_core.context import bm25
from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityKind
from tale_core.prompts.strategies import choose_language
from tale_core.types import Framing
from tale_llamaindex._tracking import Asking
from tale_llamaindex.llm import inner_of
from tale_llamaindex.synthesizer import Ask, TALESynthesizer, divide, portion

if TYPE_CHECKING:
    from llama_index.core.prompts import BasePromptTemplate
    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.response_synthesizers import BaseSynthesizer

    from tale_llamaindex._tracking import Question
    from tale_llamaindex.synthesizer import Chunks, Division

_SURVEY = PromptTemplate(
    "Numbered passages are below.\n"
    "---------------------\n"
    "{context_str}\n"
    "---------------------\n"
    "Write one line for each passage that helps to answer the query, and none for the others: its number in "
    "square brackets and what it says about the query, in a few words. End the line with a + if the answer "
    "needs more of the passage than that. Do not answer the query.\n"
    "Query: {query_str}\n"
    "Lines: "
)
_LIMIT = {
    "en": "\n\nUse less than {budget} tokens for all lines together.",
    "zh": "\n\n所有行合计使用少于 {budget} tokens。",
}
# Models decorate lines: "- [1]: ...", "1. [1] ...", "**[1]** ...".
_LINE = re.compile(
    r"^\W*(?:\d+[.)]\s+)?\W*\[(?P<number>\d+)\][\s:.*-]*(?P<gist>.*?)\s*(?P<more>\+)?\W*$", re.MULTILINE
)


class TALEHierarchicalSynthesizer(TALESynthesizer):
    r"""Surveys all passages with a share of the budget, then answers in detail with the rest.

    One call writes a line on each passage that bears on the query and marks those whose details are needed.
    The answer is synthesized from the marked passages in full and from the lines on the others, with what is
    left of the budget. Passages without a line are left out. For a single passage there is nothing to survey.

    Args:
        synthesizer: The synthesizer that answers, of any response mode; None for the default, ``compact``.
        survey_share: Share of the budget that the survey may take.
        survey_template: Prompt of the survey, with ``context_str`` and ``query_str``; None for the default.
        **options: As for `TALESynthesizer`.

    Raises:
        InvalidValueError: ``survey_share`` is not between 0 and 1, or another invalid value.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> synthesizer = TALEHierarchicalSynthesizer(llm=MockLLM(), estimator=100)
        >>> passages = ["Ann was born in 1990.", "The year is 2026, a common year."]
        >>> answer = synthesizer.get_response("How old is Ann?", passages)  # MockLLM answers with its prompt
        >>> "Ann was born in 1990." in answer, "use less than" in answer
        (True, True)
    """

    def __init__(
        self,
        synthesizer: BaseSynthesizer | None = None,
        *,
        survey_share: float = 0.3,
        survey_template: BasePromptTemplate | None = None,
        **options: Any,
    ) -> None:
        if not 0 < survey_share < 1:
            raise InvalidValueError(f"survey_share must be between 0 and 1, got {survey_share}")
        super().__init__(synthesizer, **options)
        self._survey_share = survey_share
        self._survey_template: BasePromptTemplate = _SURVEY if survey_template is None else survey_template

    def _divide(self, question: Question, chunks: Chunks) -> Division:
        texts = [chunk for chunk in chunks if not isinstance(chunk, ChatMessage)]
        if len(texts) < 2 or len(texts) < len(chunks):  # noqa: PLR2004  # one is nothing to choose from
            return divide(self._inner, question, chunks)
        return self._survey_and_answer(question, texts)

    def _survey_and_answer(self, question: Question, texts: list[str]) -> Division:
        survey = self._surveys(question, texts)
        yield survey
        lines = _read("\n".join(str(ask.response) for ask in survey), len(texts))
        if not lines:
            question.note(ElasticityKind.UNPARSABLE, "the survey names no passage; all are read in full")
        spent = sum(ask.spent for ask in survey)
        chosen = _chosen(question.run.question, texts, lines) if lines else texts
        return (yield from divide(self._inner, question, chosen, _left(question, spent)))

    def _surveys(self, question: Question, texts: list[str]) -> list[Ask]:
        """Return the calls of the survey: one, unless the passages do not fit into the context window."""
        inner = self._inner
        surveyor = TreeSummarize(
            llm=inner_of(inner._llm),
            callback_manager=inner._callback_manager,
            prompt_helper=inner._prompt_helper,
            summary_template=self._survey_template,
        )
        numbered = [f"[{number}] {text}" for number, text in enumerate(texts, start=1)]
        template = self._survey_template.partial_format(query_str=question.run.question)
        groups = inner._prompt_helper.repack(template, numbered, llm=inner._llm)
        share = self._survey_share / len(groups)
        return [Ask(surveyor, _surveying(question, share), [group]) for group in groups]

    def _get_prompts(self) -> PromptDictType:
        return {**super()._get_prompts(), "survey_template": self._survey_template}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        super()._update_prompts(prompts)
        self._survey_template = prompts.get("survey_template", self._survey_template)


def _surveying(question: Question, share: float) -> Asking:
    """Return the question as it is surveyed: with a limit, but without being asked to reason."""
    plan = portion(question, share).plan
    tokens = plan.budget.tokens
    language = choose_language(_LIMIT, question.run.question)
    after = "" if tokens is None else _LIMIT[language].replace("{budget}", str(tokens))
    framing = Framing(after=after)
    return Asking(question, plan.model_copy(update={"framing": framing, "reasons": False}))


def _read(survey: str, passages: int) -> dict[int, tuple[str, bool]]:
    """Return what a survey says of each passage, by its position, and whether its details are needed."""
    found = {
        int(line["number"]) - 1: (line["gist"], line["more"] is not None) for line in _LINE.finditer(survey)
    }
    return {index: line for index, line in found.items() if 0 <= index < passages}


def _chosen(query: str, texts: list[str], lines: dict[int, tuple[str, bool]]) -> list[str]:
    """Return the passages in full whose details are needed, and the lines on the others."""
    detailed = {index for index, (_, more) in lines.items() if more}
    if not detailed:
        # An answer needs some ground to stand on: the most relevant passage of those named.
        scores = bm25(query, texts)
        detailed = {max(lines, key=lambda index: scores[index])}
    return [texts[index] if index in detailed else lines[index][0] for index in sorted(lines)]


def _left(question: Question, spent: int) -> float:
    """Return the share of the budget that is left."""
    whole = None if question.plan is None else question.plan.budget.tokens
    return 1.0 if whole is None else max(0.0, 1 - spent / whole)
