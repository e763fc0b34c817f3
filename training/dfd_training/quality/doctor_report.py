"""The doctor's table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dfd_training.metrics import Estimate
from dfd_training.quality.findings import Check


def checks_to_text(checks: Sequence[Check]) -> str:
    """The checks as a Markdown table; intervals are 95 %, over groups."""
    lines = [
        "| check | judged by | case | n | groups | AUC | pairs won | finding |",
        "|---|---|---|---:|---:|---|---|---|",
    ]
    for check in checks:
        n, groups = (
            (check.auc.n, check.auc.groups)
            if check.auc.groups
            else (
                check.won.n,
                check.won.groups,
            )
        )
        cells = (
            check.name,
            check.by,
            check.case,
            str(n),
            str(groups),
            _figure(check.auc),
            _figure(check.won),
            f"{check.finding.value}: {check.meaning}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _figure(figure: Estimate) -> str:
    return "" if math.isnan(figure.value) else str(figure)
