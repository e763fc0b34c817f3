"""Runs: folders with a fit, a bundle and an evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.bundle.manifest import MANIFEST_NAME
from dfd_edge.errors import UsageError
from dfd_training.evaluation.evaluate import Evaluation
from dfd_training.evaluation.report import read_evaluation

HISTORY = "history.csv"
RUN = "run.json"
MODEL = "best.keras"
_EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Fit:
    """A folder that `dfd-train fit frame` or `dfd-train probe` wrote.

    Attributes:
        folder: The folder.
        history: One row for each epoch; None where the fit has no epochs.
        options: Options of the fit by name; empty where they are not recorded.
    """

    folder: Path
    history: pd.DataFrame | None
    options: dict[str, Any]

    @property
    def model(self) -> Path | None:
        """The model that was kept."""
        path = self.folder / MODEL
        return path if path.is_file() else None

    @property
    def epochs(self) -> int | None:
        """Number of finished epochs."""
        return None if self.history is None else len(self.history)

    @property
    def seconds(self) -> float | None:
        """Duration of all epochs."""
        if self.history is None or "seconds" not in self.history:
            return None
        return float(self.history["seconds"].sum())

    @property
    def best_auc(self) -> float | None:
        """The highest AUC of an epoch on the fold that was held out from the fit."""
        if self.history is None or "val_auc" not in self.history:
            return None
        return float(self.history["val_auc"].max())

    @property
    def name(self) -> str:
        """Backbone of the model, as far as it is recorded."""
        return str(self.options.get("backbone", ""))


def is_fit(folder: Path) -> bool:
    """Returns whether a folder holds the files of a fit."""
    return (folder / HISTORY).is_file() or ((folder / RUN).is_file() and (folder / MODEL).is_file())


def read_fit(folder: Path) -> Fit:
    """Reads the folder of a fit.

    Raises:
        UsageError: It holds none, or its files are damaged.
    """
    if not is_fit(folder):
        raise UsageError(
            f"{folder}: no fit: neither {HISTORY} nor {RUN} with {MODEL}; give the folder that "
            "dfd-train fit frame wrote"
        )
    history = None
    if (folder / HISTORY).is_file():
        history = _read_history(folder / HISTORY)
    options: dict[str, Any] = {}
    if (folder / RUN).is_file():
        try:
            options = dict(json.loads((folder / RUN).read_text("utf-8")).get("options", {}))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise UsageError(f"{folder / RUN}: not the record of a fit ({error})") from error
    return Fit(folder, history, options)


def history_panels(history: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Returns the columns of a history that are drawn together, with legend names, by quantity."""
    panels: dict[str, dict[str, str]] = {}
    for title, column in (("loss", "loss"), ("accuracy", "accuracy"), ("AUC", "auc")):
        names = {column: "training batches", f"val_{column}": "held-out fold"}
        found = {c: name for c, name in names.items() if c in history and history[c].notna().any()}
        if found:
            panels[title] = found
    return panels


def find_fit(out: Path, bundle: Path | None) -> Fit | None:
    """Finds the fit of an evaluation in its folder, the one above, or the one above the bundle."""
    places = [out, out.resolve().parent]
    if bundle is not None:
        places.append(bundle.resolve().parent)
    return next((read_fit(place) for place in places if is_fit(place)), None)


def relative_path(folder: Path, target: Path) -> str:
    """Returns a path relative to a folder, so that both may move together."""
    return Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix()


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not the history of a fit ({error})") from error
    if "epoch" not in history or history.empty:
        raise UsageError(f"{path}: not the history of a fit: no column epoch, or no row")
    return history


@dataclass(frozen=True)
class Run:
    """A folder whose results are compared with others'.

    Attributes:
        name: Name in tables.
        folder: The folder.
        fit: From the folder itself, or from the one above it where the folder is an evaluation.
        evaluation: From the folder itself, or from `evaluation/` in it.
        facts: Bundle, variant and rows of the evaluation, from evaluation.json.
        bundle: From `bundle/` in the folder, from the folder itself, or the evaluated one.
        no_bundle: Reason why there is none, or "".
    """

    name: str
    folder: Path
    fit: Fit | None
    evaluation: Evaluation | None
    facts: dict[str, Any]
    bundle: Bundle | None
    no_bundle: str

    @property
    def is_judged(self) -> bool:
        """Whether the bundle is the evaluated one, or has the same graphs."""
        return self.bundle is not None and _is_judged(self.bundle, self.facts)


def read_runs(folders: Sequence[Path], names: Sequence[str] | None = None) -> list[Run]:
    """Reads runs, each under a name of its own.

    Args:
        folders: Folders of the runs.
        names: As many names; by default those of the folders, with parents where they are alike.

    Raises:
        UsageError: A folder is no run or is given twice, or the number of names differs.
    """
    if names is None:
        names = _names(folders)
    elif len(names) != len(folders):
        raise UsageError(f"--names gives {len(names)} names for {len(folders)} runs; give as many")
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise UsageError(f"two runs are called {twice[0]!r}: give each a name with --names")
    return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """Reads the run in a folder.

    Raises:
        UsageError: It holds neither a fit nor an evaluation nor a bundle, or damaged files.
        BundleError: Its bundle is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder: give the folder of a fit or an evaluation")
    places = [place for place in (folder, folder / "evaluation") if (place / _EVALUATION).is_file()]
    evaluation = read_evaluation(places[0]) if places else None
    facts = _facts(places[0] / _EVALUATION) if places else {}
    above = folder.resolve().parent
    fits = [folder, *([above] if places and places[0] == folder else [])]
    fit = next((read_fit(place) for place in fits if is_fit(place)), None)
    bundle, no_bundle = _bundle(folder, places[0] if places else None, facts)
    if fit is None and evaluation is None and bundle is None:
        raise UsageError(
            f"{folder}: no run: neither a fit (run.json, best.keras, history.csv) nor an "
            "evaluation (evaluation.json, files.csv) nor a bundle is in it"
        )
    return Run(name, folder, fit, evaluation, facts, bundle, no_bundle)


def _bundle(
    folder: Path, evaluated: Path | None, facts: dict[str, Any]
) -> tuple[Bundle | None, str]:
    """Returns the bundle of a run, or why there is none.

    A bundle in the run's own folder belongs to the run. Elsewhere, only a bundle with the judged
    graphs is accepted; its card may have changed, since it receives the evaluation's figures.
    """
    for place in (folder / "bundle", folder):
        if (place / MANIFEST_NAME).is_file():
            return Bundle.load(place), ""
    if evaluated is None:
        return None, "not exported"
    places = [evaluated.resolve().parent / "bundle", DEFAULT_BUNDLE]
    if facts.get("bundle_place"):
        places.insert(0, evaluated / str(facts["bundle_place"]))
    for place in places:
        if (place / MANIFEST_NAME).is_file() and _is_judged(bundle := Bundle.load(place), facts):
            return bundle, ""
    name = facts.get("bundle_hash", "of unknown hash")
    return None, f"the bundle that was judged ({name}) is not where it was"


def _is_judged(bundle: Bundle, facts: dict[str, Any]) -> bool:
    """Returns whether a bundle is the one that was judged, or has the same graphs."""
    if bundle.hash == facts.get("bundle_hash"):
        return True
    graphs = facts.get("graphs")
    return bool(graphs) and graphs == graph_hashes(bundle, str(facts.get("precision")))


def graph_hashes(bundle: Bundle, precision: str) -> dict[str, str]:
    """Returns hashes of the frame graph of a precision and of the sequence graph."""
    manifest = bundle.manifest
    if precision not in manifest.frame.variants:
        return {}
    files = {
        "frame": manifest.frame.variants[precision].file,
        "sequence": manifest.sequence.file,
    }
    return {graph: manifest.files[name].sha256 for graph, name in files.items()}


def _facts(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        return {key: value for key, value in content.items() if key != "sections"}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: not of dfd-train evaluate ({error})") from error


def _names(folders: Sequence[Path]) -> list[str]:
    """Returns names of folders, with as many parents as make them different."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{folders[0]}: a run is given twice; give each once")
