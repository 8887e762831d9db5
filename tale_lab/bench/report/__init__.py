"""The report of a benchmark: its figures, in words, and as a table, Markdown, JSON or a page.

::

    from tale_lab.results.store import Store
    from tale_lab.bench.report import read_views, report_of, to_markdown

    print(to_markdown(report_of(read_views(Store("run.sqlite", read_only=True)))))
"""

from tale_lab.bench.report.assembly import Reported, Section, report_of, to_json
from tale_lab.bench.report.comparing import ViewComparison, compare_views
from tale_lab.bench.report.markdown import to_markdown
from tale_lab.bench.report.page import write_page
from tale_lab.bench.report.paired import BASELINE, MARGIN, Comparison
from tale_lab.bench.report.paper_table import PUBLISHED, PublishedRow, published_rows
from tale_lab.bench.report.pricing import Price, list_price
from tale_lab.bench.report.spending import Point, Spending
from tale_lab.bench.report.summary import MethodSummary, Summary
from tale_lab.bench.report.views import Entry, Plan, View, read_views, view_of
from tale_lab.bench.report.wording import remarks, rows, sentences

__all__ = [
    "BASELINE",
    "MARGIN",
    "PUBLISHED",
    "Comparison",
    "Entry",
    "MethodSummary",
    "Plan",
    "Point",
    "Price",
    "PublishedRow",
    "Reported",
    "Section",
    "Spending",
    "Summary",
    "View",
    "ViewComparison",
    "compare_views",
    "list_price",
    "published_rows",
    "read_views",
    "remarks",
    "report_of",
    "rows",
    "sentences",
    "to_json",
    "to_markdown",
    "view_of",
    "write_page",
]
