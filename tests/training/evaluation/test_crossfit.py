"""Cross-fits: families judged by models and by probes that did not see them."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION
from dfd_training.cli import main
from dfd_training.data.store import STORE_VERSION, CropStore, Shard
from dfd_training.evaluation.crops import crossfit
from dfd_training.evaluation.crops.crossfit import (
    FamilyFigures,
    summarise,
    to_markdown,
    with_both,
    write_crossfit,
)
from dfd_training.fitting.options import FitFrameOptions
from dfd_training.fitting.pairs import PairOptions
from dfd_training.models.saving import (
    average_models,
    crop_scale_of,
    load_keras_file,
    save_model,
    with_crop_scale,
)
from dfd_training.sequence.probes import FamilyProbes, ProbeOptions, Texts, Truths


def scores(count: int, shift: float, *, fit: str, left_out: bool) -> pd.DataFrame:
    rng = np.random.default_rng(count)
    reals = pd.DataFrame({"path": [f"r{n}" for n in range(count)], "label": "REAL", "family": ""})
    fakes = pd.DataFrame(
        {
            "path": [f"f{n}" for n in range(count)],
            "label": "FAKE",
            "family": "lip sync",
            "original": [f"r{n}" for n in range(count)],
        }
    )
    rows = pd.concat([reals, fakes], ignore_index=True).fillna({"original": ""})
    logit = rng.normal(0.0, 1.0, 2 * count) + shift * (rows["label"] == "FAKE")
    return rows.assign(
        mean=logit, upper=logit, group=rows["path"].str[1:], source="s", still=False,
        left_out=left_out & (rows["label"] == "FAKE"), fit=fit, signals=np.nan,
    )  # fmt: skip


def test_figures_of_families() -> None:
    table = pd.concat(
        [
            scores(40, 5.0, fit="a", left_out=False),
            scores(40, 0.0, fit="b", left_out=True).assign(
                mean=lambda rows: rows["mean"] + 100.0,
                upper=lambda rows: rows["upper"] + 100.0,
            ),
        ]
    )
    left, seen = summarise(with_both(table), draws=50)
    assert (left.family, left.seen, left.fakes, left.reals) == ("lip sync", False, 40, 40)
    assert left.network.figure == pytest.approx(0.5, abs=0.2)  # another fit's offset means nothing
    assert seen.network.figure > 0.98
    assert seen.network.found_at_3 > 0.9 > left.network.found_at_3
    assert left.signals is left.both is seen.both is None
    text = to_markdown([left, seen])
    assert "**left out**" in text
    assert "| **worst, network alone** | | 0." in text.replace("|  |", "| |")
    assert " lip sync |" in text


def with_signals(table: pd.DataFrame, shift: float) -> pd.DataFrame:
    noise = np.random.default_rng(7).normal(50.0, 10.0, len(table))
    return table.assign(signals=noise + 10.0 * shift * (table["label"] == "FAKE"))


def test_signals_count_by_half_beside_the_network() -> None:
    """Their own scale means nothing, and clips without them are judged by the network."""
    table = with_signals(scores(60, 1.0, fit="fit0", left_out=False), 2.0)
    table.loc[3, "signals"] = np.nan
    both = with_both(table)
    known = table["signals"].notna()
    spread = table["upper"][known].std(ddof=0) / table["signals"].std(ddof=0)
    wanted = table["upper"] + 0.5 * spread * (table["signals"] - table["signals"].mean())
    np.testing.assert_allclose(both["both"][known], wanted[known])
    assert both["both"][3] == pytest.approx(table["upper"][3])
    assert with_both(table.assign(still=True))["both"].isna().all()
    larger = with_both(table.assign(signals=lambda rows: rows["signals"] * 9.0 - 4.0))
    np.testing.assert_allclose(larger["both"], both["both"])


def test_what_was_left_out_has_no_say_in_the_scales() -> None:
    seen = with_signals(scores(60, 1.0, fit="fit0", left_out=False), 2.0)
    far = seen.assign(path=lambda rows: "left " + rows["path"], left_out=True)
    far = far[far["label"] == "FAKE"].assign(signals=1e6, upper=1e6)
    alone, together = with_both(seen), with_both(pd.concat([seen, far], ignore_index=True))
    np.testing.assert_allclose(alone["both"], together["both"][: len(seen)])


def test_the_table_has_network_signals_and_both(tmp_path: Path) -> None:
    left = with_signals(scores(60, 0.8, fit="fit0", left_out=True), 2.0)
    still = scores(40, 0.5, fit="fit0", left_out=True).assign(still=True)
    still["path"], still["original"] = "s" + still["path"], "s" + still["original"]
    table = pd.concat([left, still], ignore_index=True)
    rows = write_crossfit(table, tmp_path, pooling="upper")
    clips, stills = sorted(rows, key=lambda row: row.family)
    assert isinstance(clips.signals, FamilyFigures)
    assert isinstance(clips.both, FamilyFigures)
    assert clips.signals.own.value > 0.85 > clips.network.own.value
    assert clips.both.own.value > clips.network.own.value
    assert clips.both.found_at_10 > clips.network.found_at_10
    assert (stills.family, stills.signals, stills.both) == ("lip sync (stills)", None, None)
    text = (tmp_path / "families.md").read_text()
    assert "AUC, own originals: signals | AUC, own originals: both |" in text
    assert f"**mean, clips** |  | **{clips.network.own.value:.3f}** |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| lip sync (stills)")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert (cells[3], cells[4]) == ("-", "-")
    assert len({line.count("|") for line in text.splitlines()}) == 1
    written = pd.read_csv(tmp_path / "scores.csv")
    assert {"signals", "both"} < set(written)
    assert written["both"][written["still"]].isna().all()


def test_probes_see_no_family_and_no_group_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged clips get scores of probes on the other families' and groups' signals alone."""
    store = signals_store(tmp_path / "store")
    fitted_on: list[tuple[set[str], set[str]]] = []
    fit = FamilyProbes.fit

    def noting(
        signals: NDArray[np.float64],
        families: Texts,
        generators: Texts,
        groups: Texts,
        fakes: Truths,
        *,
        options: ProbeOptions,
    ) -> FamilyProbes:
        fitted_on.append((set(families), set(groups)))
        return fit(signals, families, generators, groups, fakes, options=options)

    def judged(store: CropStore, held: pd.DataFrame, left: set[str], *_: object) -> pd.DataFrame:
        first = held.drop_duplicates("path")
        names = ["path", "label", "family", "group", "source", "original"]
        return first[names].assign(
            still=False, mean=0.0, upper=0.0, left_out=first["family"].isin(left)
        )

    monkeypatch.setattr(crossfit, "fit_frame", lambda _, folder, **__: folder / "best.keras")
    monkeypatch.setattr(crossfit, "_judged", judged)
    monkeypatch.setattr(FamilyProbes, "fit", noting)
    table = crossfit.crossfit(
        store, tmp_path, [("lip sync",), ("live swap",)],
        options=FitFrameOptions(), pairs=PairOptions(),
    )  # fmt: skip
    assert table["fit"].unique().tolist() == ["fit0", "fit1"]
    for (families, groups), (name, part) in zip(fitted_on, table.groupby("fit"), strict=True):
        left = {"fit0": "lip sync", "fit1": "live swap"}[str(name)]
        assert families == {"", "lip sync", "live swap"} - {left}
        assert not groups & set(part["group"])
        short = part["path"].str.startswith("short")
        assert part["signals"][short].isna().all()
        known = part[~short]
        assert known["signals"].notna().all()
        fakes = known["label"] == "FAKE"
        assert known["signals"][fakes].min() > known["signals"][~fakes].max()


def signals_store(path: Path) -> CropStore:
    """Clips: reals, fakes of two families that one signal gives away, and short ones."""
    (path / "crops").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for number in range(48):
        kind = ("", "lip sync", "live swap")[number % 3]
        count = 2 if number >= 45 else 5
        name = f"{'short' if count == 2 else 'clip'}{number}"
        signals = np.zeros((count, len(NAMES)), np.float32)
        signals[:, 0] = rng.normal(20.0 * (kind != ""), 1.0, count)
        signals[0] = np.nan
        Shard(
            data=np.zeros(count, np.uint8), offsets=np.arange(count + 1),
            boxes=np.zeros((count, 4), np.float32),
            landmarks=np.full((count, 468, 2), np.nan, np.float32),
            time_s=np.arange(count) / 5, track=np.ones(count, np.int32),
            face_px=np.full(count, 100, np.float32), judged=np.ones(count, bool),
            reason=np.full(count, ""), signals=signals,
        ).save(path / "crops" / f"{name}.npz")  # fmt: skip
        rows += [
            {
                "path": name, "label": "FAKE" if kind else "REAL", "kind": kind, "generator": kind,
                "model": "", "original": "", "group": f"g{number}", "source": "s",
                "split": "train", "shard": f"{name}.npz", "position": position, "track": 1,
                "time_s": position / 5, "face_px": 100.0, "judged": True, "has_landmarks": False,
                "reason": "",
            }
            for position in range(count)
        ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path / "index.csv", index=False)
    settings = {"version": STORE_VERSION, "rate_hz": 5.0, "signals_version": SIGNALS_VERSION}
    (path / "store.json").write_text(json.dumps(settings))
    return CropStore(path)


@pytest.mark.slow
def test_crossfit_from_the_command_line(small_store: CropStore, tmp_path: Path) -> None:
    arguments = [
        "crossfit", str(small_store.path), "--out", str(tmp_path), "--leave-out", "landmark swap",
        "--fit", "weights=none", "--fit", "backbone=meso4", "--fit", "steps=2", "--fit", "epochs=1",
        "--fit", "batch_size=4", "--fit", "validation_pairs=4", "--pairs", "input_size=48",
        "--pairs", "true_share=0.0",
    ]  # fmt: skip
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| landmark swap | 6 / 6 |" in done.output
    assert {"families.md", "families.json", "families.png", "scores.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }
    again = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert "| landmark swap | 6 / 6 |" in again.output
    assert "epoch" not in again.output  # nothing is fitted twice


@pytest.mark.slow
def test_averages_of_fits_that_left_out_the_same(small_store: CropStore, tmp_path: Path) -> None:
    def arguments(out: str, *more: str, left: str = "landmark swap") -> list[str]:
        return [
            "crossfit", str(small_store.path), "--out", str(tmp_path / out), "--leave-out", left,
            *more,
        ]  # fmt: skip

    for seed in "12":
        CliRunner().invoke(
            main,
            arguments(
                seed, "--fit", "weights=none", "--fit", "backbone=meso4", "--fit", "steps=2",
                "--fit", "epochs=1", "--fit", "batch_size=4", "--fit", "validation_pairs=4",
                "--pairs", "input_size=48", "--pairs", "true_share=0.0", "--fit", f"seed={seed}",
            ),
            catch_exceptions=False,
        )  # fmt: skip
    members = ["--average", str(tmp_path / "1"), "--average", str(tmp_path / "2")]
    done = CliRunner().invoke(main, arguments("mean", *members), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "epoch" not in done.output
    one, two, mean = (
        load_keras_file(tmp_path / run / "fit0" / "best.keras").get_weights()
        for run in ("1", "2", "mean")
    )
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    for a, b, c in zip(one, two, mean, strict=True):
        np.testing.assert_allclose(c, (a + b) / 2, rtol=1e-6, atol=1e-7)
    logits = [pd.read_csv(tmp_path / run / "scores.csv")["mean"] for run in ("1", "mean")]
    assert not np.allclose(*logits)

    written = (tmp_path / "mean" / "fit0" / "best.keras").stat().st_mtime_ns
    CliRunner().invoke(main, arguments("mean", *members), catch_exceptions=False)
    assert (tmp_path / "mean" / "fit0" / "best.keras").stat().st_mtime_ns == written
    twice = [*members, "--average", str(tmp_path / "1")]
    CliRunner().invoke(main, arguments("mean", *twice), catch_exceptions=False)
    other = load_keras_file(tmp_path / "mean" / "fit0" / "best.keras").get_weights()
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_allclose(c, (2 * a + b) / 3, rtol=1e-6, atol=1e-7)

    refused = CliRunner().invoke(main, arguments("other", *members, left="self-blended"))
    assert refused.exit_code
    (tmp_path / "2" / "fit0" / "run.json").unlink()
    refused = CliRunner().invoke(main, arguments("again", *members))
    assert isinstance(refused.exception, UsageError) or "no finished fit" in refused.output


def test_only_models_of_one_shape_and_crop_scale_are_averaged(tmp_path: Path) -> None:
    def saved(name: str, *, width: int = 3, scale: float = 1.5, fill: float = 1.0) -> Path:
        image = keras.Input((4,))
        model = with_crop_scale(keras.Model(image, keras.layers.Dense(width)(image)), scale)
        model.set_weights([np.full_like(part, fill) for part in model.get_weights()])
        save_model(model, tmp_path / f"{name}.keras")
        return tmp_path / f"{name}.keras"

    one, three = saved("one"), saved("three", fill=3.0)
    average_models([one, three], tmp_path / "mean.keras")
    mean = load_keras_file(tmp_path / "mean.keras")
    assert crop_scale_of(mean) == 1.5
    assert all((part == 2.0).all() for part in mean.get_weights())
    with pytest.raises(UsageError, match="other layers"):
        average_models([one, saved("wide", width=4)], tmp_path / "no.keras")
    with pytest.raises(UsageError, match=r"crop scale 1\.25"):
        average_models([one, saved("narrow", scale=1.25)], tmp_path / "no.keras")
    with pytest.raises(UsageError, match="two or more"):
        average_models([one], tmp_path / "no.keras")
    assert not (tmp_path / "no.keras").exists()
