"""What is left of how a run was made: its settings, to be given again, and the facts around it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from dfd_edge.errors import UsageError
from dfd_edge.processor import processor_name
from dfd_edge.sinks.files import written_whole
from dfd_training.fitting.precision import accelerators
from dfd_training.settings import read_settings, to_toml
from dfd_training.store import CropStore

RUN_NAME = "run.json"
SETTINGS_NAME = "settings.toml"

_MAY_CHANGE = {"epochs", "patience", "threads"}
"""Settings that a run may be resumed with other values of."""

_DISTRIBUTIONS = ("dfd-edge", "keras", "numpy", "opencv-python", "pandas", "scikit-learn")
_BACKENDS = ("tensorflow", "jax", "torch")


def write_record(
    out: Path, tables: Mapping[str, Any], *, data: Mapping[str, object], **results: object
) -> None:
    """Write `settings.toml` and `run.json` into a run's folder.

    Args:
        out: the folder.
        tables: the dataclasses of settings by the names of their tables; those of the fit itself
            are called `fit`. Programs find them in `run.json` too, there as `options`.
        data: what the run was made from.
        results: more for `run.json`.
    """
    with written_whole(out / SETTINGS_NAME) as partial:
        partial.write_text(to_toml(tables), "utf-8")
    settings = {
        "options" if name == "fit" else name: dataclasses.asdict(options)
        for name, options in tables.items()
    }
    facts = {
        **settings,
        "seed": tables["fit"].seed,
        "data": dict(data),
        "versions": versions(),
        "backend": keras.backend.backend(),
        "machine": machine(),
        **results,
    }
    with written_whole(out / RUN_NAME) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def check_resumed(out: Path, tables: Mapping[str, Any]) -> None:
    """Refuse to go on with a run with other settings than it was begun with.

    Raises:
        UsageError: A setting is another; how many epochs there are at most may change.
    """
    path = out / SETTINGS_NAME
    if not path.is_file():
        return
    begun = read_settings(path, {name: type(options) for name, options in tables.items()})
    for table, options in tables.items():
        for name, before in begun[table].items():
            now = getattr(options, name)
            if before != now and name not in _MAY_CHANGE:
                raise UsageError(
                    f"{path}: the run was begun with {table}.{name} = {before!s}, which is now "
                    f"{now!s}: give the same settings (--settings {path}) or another --out"
                )


def data_facts(store: CropStore) -> dict[str, object]:
    """What a store holds: its settings, its rows, and the hashes of its tables."""
    tables = [path for path in (store.path / "index.csv", store.path / "made.csv") if path.exists()]
    return {
        "store": store.settings,
        "rows": len(store.index),
        "made_rows": len(store.made),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tables},
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what computes; backends as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in (*_DISTRIBUTIONS, *_BACKENDS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """The system, its processor, its cores and the GPUs that Keras' backend sees."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": usable,
        "gpus": list(accelerators()),
    }
