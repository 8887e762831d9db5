"""The elasticity curve as a table, in sentences, and as an interactive page that needs no network."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tale_core.errors import InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.curves.elasticity import CurvePoint, ElasticityCurve, Measurement

_SPENT, _RIGHT, _PLAIN, _IDEAL, _REBOUND = "#1f5fa8", "#2a7d4f", "#6b6b6b", "#f2c14e", "#b3372f"
_MOST_QUESTIONS = 200  # more lines than these are a grey area, and a page that browsers open slowly


def write_html(
    path: str | Path, curve: ElasticityCurve, measurements: Sequence[Measurement], *, model: str, data: str
) -> None:
    """Write a page with the curve, every question's own line, and the figures; opens without a network.

    Raises:
        MissingExtraError: plotly is not installed.
        InvalidValueError: The file cannot be written.
    """
    plot = _figure(curve, measurements).to_html(
        full_html=False, include_plotlyjs=True, config={"displaylogo": False, "responsive": True}
    )
    header, *rows = table(curve)
    page = (
        Path(__file__)
        .with_name("page.html")
        .read_text(encoding="utf-8")
        .format(
            model=escape(model),
            subtitle=escape(f"{curve.questions} questions of {data}; strategy {curve.strategy!r}"),
            findings="\n".join(f"<p>{escape(line)}</p>" for line in findings(curve)),
            plot=plot,
            head="".join(f"<th>{escape(cell)}</th>" for cell in header),
            rows="\n".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
            ),
        )
    )
    try:
        Path(path).write_bytes(page.encode())
    except OSError as exc:
        raise InvalidValueError(f"cannot write {str(path)!r}: {exc.strerror}") from exc


def table(curve: ElasticityCurve) -> list[tuple[str, ...]]:
    """Return the figures of a curve as rows of text, the header first."""
    header = ("budget", "output tokens", "interval", "correct", "interval", "bare", "cut")
    return [header, *(_row(point) for point in (curve.vanilla, *curve.points))]


def findings(curve: ElasticityCurve) -> tuple[str, ...]:
    """Return what a curve says, one sentence each."""
    ideal, floor = curve.ideal, curve.floor
    if ideal is None:
        lines = ["Ideal budget range: none; no budget of this grid keeps the answers and saves tokens."]
    elif ideal.low == ideal.high:
        lines = [f"Ideal budget: {ideal.low} tokens."]
    else:
        lines = [f"Ideal budget range: {ideal.low} to {ideal.high} tokens."]
    lines.append(
        "Rebound: none; a smaller budget never costs more than a larger one, beyond the noise."
        if curve.rebound is None
        else f"Rebound: at a budget of {curve.rebound} the answers cost more tokens again than at a larger one."
    )
    if floor is None:
        lines.append("Collapse floor: none; even the largest budget leads to bare answers.")
    elif floor == curve.points[0].budget:
        lines.append(f"Collapse: not seen; the model still reasons at the smallest budget, {floor}.")
    else:
        lines.append(f"Collapse floor: {floor}; below it the answers are bare.")
    if curve.estimated:
        lines.append(f"{curve.estimated} answers were counted by a tokenizer, not by the provider.")
    return tuple(lines)


def _row(point: CurvePoint) -> tuple[str, ...]:
    return (
        "none" if point.budget is None else str(point.budget),
        f"{point.tokens:.0f}",
        f"{point.tokens_interval:.0f}",
        f"{point.accuracy:.0%}",
        f"{point.accuracy_interval:.0%}",
        f"{point.bare:.0%}",
        f"{point.truncated:.0%}",
    )


def _figure(curve: ElasticityCurve, measurements: Sequence[Measurement]) -> Any:
    try:
        from plotly import graph_objects as go  # noqa: PLC0415  # slow to import
        from plotly.subplots import make_subplots  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError("plotly", "eval") from exc
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.62, 0.38])
    for measurement in measurements[:_MOST_QUESTIONS]:
        figure.add_trace(_question_line(go, measurement), row=1, col=1)
    budgets = [point.budget for point in curve.points]
    for row, name, color in ((1, "tokens", _SPENT), (2, "accuracy", _RIGHT)):
        figure.add_trace(_series(go, curve, name, color), row=row, col=1)
        _add_vanilla(figure, curve, name, row)
    dotted = {"color": _PLAIN, "dash": "dot"}
    exact = go.Scatter(x=budgets, y=budgets, mode="lines", name="exactly the budget", line=dotted)
    figure.add_trace(exact, row=1, col=1)
    _add_marks(figure, curve)
    _lay_out(figure, budgets)
    return figure


def _question_line(go: Any, measurement: Measurement) -> Any:
    points = [point for budget, point in measurement.points.items() if budget is not None]
    return go.Scatter(
        x=[point.budget for point in points],
        y=[point.tokens for point in points],
        customdata=["correct" if point.correct else "wrong" for point in points],
        hovertemplate="%{y:.0f} tokens, %{customdata}",
        name=escape(measurement.question[:60]),
        showlegend=False,
        mode="lines+markers",
        line={"color": "rgba(31,95,168,0.16)", "width": 1},
        marker={"size": 4, "color": [_RIGHT if one.correct else _REBOUND for one in points], "opacity": 0.45},
    )


def _series(go: Any, curve: ElasticityCurve, name: str, color: str) -> Any:
    values = [getattr(point, name) for point in curve.points]
    intervals = [getattr(point, f"{name}_interval") for point in curve.points]
    form = ".0f" if name == "tokens" else ".0%"
    return go.Scatter(
        x=[point.budget for point in curve.points],
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [one.high - value for one, value in zip(intervals, values, strict=True)],
            "arrayminus": [value - one.low for one, value in zip(intervals, values, strict=True)],
        },
        customdata=[f"{one:{form}}" for one in intervals],
        hovertemplate=f"%{{y:{form}}} (%{{customdata}})",
        mode="lines+markers",
        name="mean tokens" if name == "tokens" else "correct answers",
        line={"color": color, "width": 3},
        marker={"size": 9},
    )


def _add_vanilla(figure: Any, curve: ElasticityCurve, name: str, row: int) -> None:
    interval = getattr(curve.vanilla, f"{name}_interval")
    figure.add_hrect(
        y0=interval.low, y1=interval.high, fillcolor=_PLAIN, opacity=0.12, line_width=0, row=row, col=1
    )
    figure.add_hline(
        y=getattr(curve.vanilla, name),
        line={"color": _PLAIN, "dash": "dash"},
        annotation_text="without a budget",
        annotation_position="top left",
        row=row,
        col=1,
    )


def _add_marks(figure: Any, curve: ElasticityCurve) -> None:
    if curve.ideal is not None:
        # Wider than the range by what shows on a logarithmic axis: a range of one budget would be invisible.
        low, high = curve.ideal.low * 0.94, curve.ideal.high * 1.06
        figure.add_vrect(x0=low, x1=high, fillcolor=_IDEAL, opacity=0.3, line_width=0, layer="below")
    if curve.rebound is not None:
        figure.add_vline(x=curve.rebound, line={"color": _REBOUND, "dash": "dashdot"}, row=1, col=1)


def _lay_out(figure: Any, budgets: Sequence[int | None]) -> None:
    figure.update_xaxes(type="log", tickvals=budgets, ticktext=[str(budget) for budget in budgets])
    figure.update_xaxes(title_text="budget asked for, output tokens", row=2, col=1)
    figure.update_yaxes(title_text="output tokens per question", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="share of correct answers", tickformat=".0%", range=[0, 1.02], row=2, col=1)
    figure.update_layout(
        template="plotly_white",
        height=760,
        margin={"l": 70, "r": 20, "t": 50, "b": 60},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
    )
