"""The published schema of the records."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def records_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every object that `dfd-edge` writes or posts.

    It allows the four records of `--json` and the body that `--webhook` posts, told apart by
    `record`. It is the file `records.schema.json` in this package.

    Example:
        >>> schema = records_schema()
        >>> sorted(schema["$defs"]["event"]["required"])
        ['detail', 'kind', 'record', 'source', 'time_s']
    """
    text = resources.files("dfd_edge").joinpath("records.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
