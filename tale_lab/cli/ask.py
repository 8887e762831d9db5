"""``tale ask``: one question under a budget, with its accounts, or beside the ways it is compared with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tale_core.errors import InvalidValueError
from tale_core.method.calibration import find_calibration
from tale_core.models.client import ChatClient
from tale_lab.cli._asking import (
    TALE,
    VANILLA,
    accounts,
    ask_once,
    baselines,
    calibration_note,
    choose_method,
    side_by_side,
    working,
)
from tale_lab.cli._shared import (
    CalibrationOption,
    JsonOption,
    ModelOption,
    ModelPathOption,
    err,
    out,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core.method.method import TaleMethod
    from tale_lab.cli._asking import Asked


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    *,
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="Prompt strategy; by default the calibration's, or else tale."),
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Budget in output tokens; estimated by default.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also ask directly and with vanilla chain of thought.")
    ] = False,
    language: Annotated[str, typer.Option(help="Language of the prompt: en, zh, or auto.")] = "auto",
    calibration: CalibrationOption = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; 0 for the local model by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question under a token budget and show what the answer cost.

    The answer goes to standard output, everything about it to standard error.
    """
    text = (sys.stdin.read() if question == "-" else question).strip()
    if not text:
        raise InvalidValueError(f"the question is empty, got {question!r}; give one, or pipe it in with -")
    client = ChatClient.open(model, model_path=model_path, temperature=temperature)
    method, used = choose_method(
        strategy=strategy,
        budget=budget,
        language=language,
        calibration=find_calibration(calibration, model_name=client.model),
    )
    if used is not None and not as_json:
        err.print(calibration_note(used, budget=budget), style="dim", soft_wrap=True)
    if compare:
        _compare(client, method, text, language=language, as_json=as_json)
    else:
        _ask(client, method, text, as_json=as_json)


def _ask(client: ChatClient, method: TaleMethod, question: str, *, as_json: bool) -> None:
    if as_json:
        asked = ask_once(client, method, question)
        print_json({"question": question, "model": client.model, **asked.record()})
        return
    with err.status(f"Asking {client.model}") as status:
        asked = ask_once(client, method, question, show=_printer(status.stop))
    out.print("\n" if out.is_terminal else "")
    err.print(accounts(asked))


def _printer(before_first: Callable[[], None]) -> Callable[[str], None]:
    """Return a function that writes pieces as they come, after the spinner is gone."""

    def show(piece: str) -> None:
        before_first()
        out.write(piece)

    return show


def _compare(client: ChatClient, method: TaleMethod, question: str, *, language: str, as_json: bool) -> None:
    ways: dict[str, Asked] = {}
    for way, one in {**baselines(language), TALE: method}.items():
        with working(way) as (show,):
            ways[way] = ask_once(client, one, question, way=way, show=show)
    saved = ways[TALE].against(ways[VANILLA])
    if as_json:
        print_json(
            {
                "question": question,
                "model": client.model,
                "ways": [asked.record() for asked in ways.values()],
                "savings": {**saved.model_dump(), "net_tokens": saved.net_tokens, "net_ratio": saved.net_ratio},
            }
        )
        return
    out.print(side_by_side(list(ways.values()), ways[VANILLA], width=out.width))
    out.print(f"TALE against vanilla CoT: {saved}")
