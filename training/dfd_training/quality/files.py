"""Files that the quality commands read and write."""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from dfd_edge.errors import UsageError
from dfd_training.metrics import Estimate

T = TypeVar("T")

logger = logging.getLogger(__name__)


def plain(value: Any) -> Any:  # noqa: ANN401 - plain JSON values
    """Dataclasses as dicts, NaN as None: what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write figures as JSON under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(plain(content), indent=1) + "\n")
    partial.replace(path)


def read_figures(path: Path, key: str, kind: type[T]) -> T:
    """Read what `write_json` wrote under a key, as the dataclasses that it was.

    Args:
        path: of the JSON file.
        key: of the object in it.
        kind: a dataclass, or a list of one.

    Raises:
        UsageError: when the file is none of these commands', or of another version.
    """
    try:
        return cast(T, _revived(kind, json.loads(path.read_text("utf-8"))[key]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: no {key} of this version in it ({error!r:.80}): run the command that writes "
            "it again"
        ) from error


def _revived(kind: Any, value: Any) -> Any:  # noqa: ANN401 - types and JSON values
    """JSON as a dataclass; null is NaN where a float belongs."""
    if typing.get_origin(kind) is list:
        return [_revived(typing.get_args(kind)[0], item) for item in value]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {name: _revived(hints[name], item) for name, item in value.items()}
        return cast(type[Any], kind)(**fields)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return math.nan if kind is float and value is None else value


def model_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Short names of model files: the run's folder where the file's name says nothing."""
    short = [path.parent.name if path.stem in ("best", "last") else path.stem for path in paths]
    names = [
        name if name and short.count(name) == 1 else str(path.with_suffix(""))
        for name, path in zip(short, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise UsageError(f"{paths[0]}: a model is given twice; give each once")
    return dict(zip(names, paths, strict=True))


def warn_of_leak(model: Path, split: str, fold: int | None) -> None:
    """Say so when a model's run tells that it was fitted on the rows that it is to judge."""
    run = model.parent / "run.json"
    if split != "train" or not run.is_file():
        return
    held = json.loads(run.read_text("utf-8")).get("options", {}).get("holdout")
    if held is not None and held != fold:
        what = "all rows marked train" if fold is None else f"fold {fold}"
        logger.warning(
            "%s was fitted without fold %s but judges %s: it has seen some of them",
            model,
            held,
            what,
        )


def signed(figure: Estimate, *, digits: int = 3) -> str:
    """A difference with its interval, each with its sign."""
    value, low, high = (f"{end:+.{digits}f}" for end in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"
