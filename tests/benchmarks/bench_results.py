"""Results of `dfd-bench` as programs read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from dfd_benchmarks.results.schema import SCHEMA_FILE


def read_valid(path: Path) -> dict[str, Any]:
    """A result file, held against the published schema."""
    record = json.loads(path.read_text("utf-8"))
    jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text("utf-8")))
    return record
