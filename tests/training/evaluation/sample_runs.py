"""Evaluations and fits for tests, made up: what `evaluate` and `fit frame` leave, in no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from dfd_training.evaluation.evaluate import Evaluation

FACTS = {"bundle": "small", "split": "val", "thresholds": {"real": 0.3, "fake": 0.7}}
HOSTILE = "</script><script>document.title='run'</script>.mp4"


def file_row(path: str, label: str, p_fake: float, **more: object) -> dict[str, object]:
    """A clip as `evaluate` writes it into files.csv."""
    verdict = "fake" if p_fake >= 0.7 else "real" if p_fake <= 0.3 else "unsure"
    row = {
        "path": path,
        "label": label,
        "original": "",
        "generator": "tool" if label == "FAKE" else "",
        "model": "",
        "group": path.partition("_")[0],
        "split": "val",
        "source": "camera",
        "kind": "clip",
        "verdict": verdict,
        "p_fake": p_fake,
        "cnn": p_fake,
        "gru": p_fake,
        "frames": 10,
        "coverage": 1.0,
        "error": "",
    }
    return {**row, **more}


def make_evaluation(*, seed: int = 0, count: int = 12, shift: float = 1.0) -> Evaluation:
    """Pairs of clips whose scores overlap, a clip without a face, and a file that is none."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        for label, middle in (("REAL", -shift), ("FAKE", shift)):
            p = 1.0 / (1.0 + np.exp(-rng.normal(middle, 1.2)))
            rows.append(file_row(f"g{number}_{label.lower()}.mp4", label, float(p)))
    nothing = {"cnn": np.nan, "gru": np.nan}
    unreadable = {"kind": "unreadable", "verdict": "error", "error": "bad"}
    rows.append(file_row("g0_leaf.mp4", "REAL", np.nan, verdict="no_face", **nothing))
    rows.append(file_row(HOSTILE, "REAL", np.nan, **nothing, **unreadable))
    frames = [
        {
            "path": row["path"],
            "time_s": step / 5,
            "track": 1,
            "p_frame": float(np.clip(row["p_fake"] + 0.05 * step - 0.1, 0.01, 0.99)),
            "p_step": row["p_fake"],
        }
        for row in rows
        if row["p_fake"] == row["p_fake"]
        for step in range(4)
    ]
    return Evaluation(pd.DataFrame(rows), pd.DataFrame(frames))


def make_fit(folder: Path, epochs: int = 3) -> Path:
    """A folder as `fit frame` leaves it, without the model."""
    folder.mkdir(parents=True)
    history = pd.DataFrame({"epoch": np.arange(float(epochs)), "seconds": 60.0})
    for name, value in (("loss", 0.6), ("val_loss", 0.7), ("val_auc", 0.8), ("accuracy", 0.7)):
        history[name] = value - 0.01 * history["epoch"]
    history.to_csv(folder / "history.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"options": {"backbone": "meso4"}}))
    return folder
