"""One page that shows and explains the verdicts of a run.

`reported` gives a `Collector`, which takes what a run gives while it runs, under a bound on memory,
and makes one self-contained HTML file of it at the end. jinja2 and plotly are loaded only where a
page is asked for.
"""

from dfd_edge.report.collector import CollectingReporter, Collector
from dfd_edge.report.page import check_report, reported

__all__ = ["CollectingReporter", "Collector", "check_report", "reported"]
