"""What LoadGen's detailed log says of a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dfd_edge.errors import DfdError

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]

PERCENTILES = ("50.00", "90.00", "95.00", "99.00", "99.90")


@dataclass(frozen=True, slots=True)
class Test:
    """What LoadGen says of one test.

    Attributes:
        valid: Its own VALID, and no error in its log.
        reasons: What speaks against it, in LoadGen's words.
        latency_ms: Milliseconds by percentile, of a query.
        rate_hz: Queries a second; of offline, samples a second.
        queries: Queries (samples, offline) that were answered.
        version: LoadGen's.
    """

    valid: bool
    reasons: tuple[str, ...]
    latency_ms: Mapping[str, float]
    rate_hz: float
    queries: int
    version: str


def read_log(path: Path, scenario: Scenario) -> Test:
    """Read LoadGen's detailed log.

    Raises:
        DfdError: It is not as LoadGen writes it.
    """
    values: dict[str, Any] = {}
    errors = []
    for line in path.read_text(errors="replace").splitlines():
        _, mark, text = line.partition(":::MLLOG ")
        if not mark:
            continue
        entry = json.loads(text)
        values[entry["key"]] = entry["value"]
        if entry["metadata"].get("is_error"):
            errors.append(str(entry["value"]))
    middle = "per_query_latency" if scenario == "multi-stream" else "latency"
    try:
        latency_ms = {p: values[f"result_{p}_percentile_{middle}_ns"] / 1e6 for p in PERCENTILES}
        queries, said = int(values["result_query_count"]), values["result_validity"]
        if scenario == "offline":
            queries = int(values["effective_samples_per_query"])
        rate_hz = _rate_hz(values, scenario)
    except KeyError as error:
        raise DfdError(f"LoadGen's log lacks {error}: its test did not come to an end") from error
    reasons = [str(values.get("result_invalid_reason", "")).strip(), *errors]
    for key, text in (
        ("result_perf_constraints_met", "the target latency was not kept"),
        ("result_min_duration_met", "shorter than the duration"),
        ("early_stopping_met", f"early stopping: {values.get('early_stopping_result', '')}"),
    ):
        if values.get(key) is False:
            reasons.append(" ".join(text.split()))
    valid = said == "VALID" and not errors
    return Test(
        valid=valid,
        reasons=() if valid else tuple(reason for reason in reasons if reason),
        latency_ms=latency_ms,
        rate_hz=rate_hz,
        queries=queries,
        version=str(values.get("loadgen_version", "unknown")),
    )


def _rate_hz(values: Mapping[str, Any], scenario: Scenario) -> float:
    if scenario == "offline":
        return float(values["result_samples_per_second"])
    if scenario == "server":
        return float(values["result_completed_samples_per_sec"])
    if scenario == "single-stream":
        return float(values["result_qps_with_loadgen_overhead"])
    return 1e9 / float(values["result_mean_query_latency_ns"])  # one query after the other
