"""The report of a benchmark: its figures, in words, and as a table, Markdown, JSON or a page.

::

    from tale_lab.results.store import Store
    from tale_lab.bench.report import read_views, report_of, to_markdown

    print(to_markdown(report_of(read_views(Store("run.sqlite", read_only=True)))))
"""

from tale_lab.bench.report.assembly import PUBLISHED, PublishedRow, Reported, published_rows, report_of
from tale_lab.bench.report.figures import Comparison, Summary, list_price
from tale_lab.bench.report.output import to_json, to_markdown, write_page
from tale_lab.bench.report.views import Entry, Plan, View, read_views, view_of

__all__ = [
    "PUBLISHED",
    "Comparison",
    "Entry",
    "Plan",
    "PublishedRow",
    "Reported",
    "Summary",
    "View",
    "list_price",
    "published_rows",
    "read_views",
    "report_of",
    "to_json",
    "to_markdown",
    "view_of",
    "write_page",
]
