"""What a fit draws from, and stores that it refuses in one clear line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dfd_edge.errors import UsageError
from dfd_training.cli import main
from dfd_training.data.folds import training_rows
from dfd_training.data.store import CropStore
from dfd_training.fitting.options import Balance, FitFrameOptions, Media
from dfd_training.fitting.pairs import PairOptions
from dfd_training.fitting.sources import PairSource, TableSource, crop_sources

PAIRS = PairOptions(input_size=32)


def changed(store: CropStore, folder: Path, change: Callable[[pd.DataFrame], object]) -> CropStore:
    """A copy of a store, with its index changed in place or by what is returned."""
    shutil.copytree(store.path, folder)
    index = store.index.copy()
    result = change(index)
    (result if isinstance(result, pd.DataFrame) else index).to_csv(
        folder / "index.csv", index=False
    )
    return CropStore(folder)


def without_originals(index: pd.DataFrame) -> None:
    index["original"] = ""
    index["group"] = index["path"]


def test_crops_are_drawn_as_the_table_has_them(small_store: CropStore, tmp_path: Path) -> None:
    """Fakes whose originals nobody knows are drawn too, and both classes weigh the same."""
    store = changed(small_store, tmp_path / "store", without_originals)
    files = store.index[store.index["judged"]].drop_duplicates("shard")
    fakes = int((files["label"] == "FAKE").sum())
    source = TableSource(store, store.index, PAIRS)
    assert source.class_weights == (
        len(files) / (2 * (len(files) - fakes)),
        len(files) / (2 * fakes),
    )
    crops, labels, weights = source.draw(300, (1, 2))
    assert crops.shape == (300, 32, 32, 3)
    assert labels.mean() == pytest.approx(fakes / len(files), abs=0.1)
    assert set(weights[labels == 1].tolist()) == {np.float32(source.class_weights[1])}
    assert weights.mean() == pytest.approx(1.0, abs=0.15)
    again = source.draw(4, (1, 2))
    assert (again[0] == crops[:4]).all()
    assert (source.draw(4, (1, 3))[0] != crops[:4]).any()


def test_the_balance_is_chosen_by_the_options(small_store: CropStore) -> None:
    for balance, kind in ((Balance.PAIRS, PairSource), (Balance.CLASS_WEIGHTS, TableSource)):
        sources = crop_sources(small_store, FitFrameOptions(balance=balance, holdout=1), PAIRS)
        assert [type(source) for source in sources] == [kind, kind]


def only(label: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda index: index[index["label"] == label]


def all_val(index: pd.DataFrame) -> None:
    index["split"] = "val"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (all_val, {}, r"no row of its index is marked train \(found: val\)"),
        (lambda index: index.iloc[:0], {}, r"marked train \(found: no crop at all\)"),
        (only("FAKE"), {}, "no real crop with landmarks among the rows"),
        (
            only("REAL"),
            {"balance": Balance.CLASS_WEIGHTS},
            "0 fake files with a judged face: class weights need both classes",
        ),
        (
            lambda index: index[index["source"] == "clips"],
            {"train_on": Media.PHOTOGRAPHS},
            r"the folds to fit on have no crop \(of photographs\)",
        ),
        (
            lambda index: index[index["path"].str.contains("clip0")],
            {},
            r"the folds to fit on have no crop|the held-out fold 0 has no crop",
        ),
    ],
)
def test_stores_that_do_not_suffice(
    change: Callable[[pd.DataFrame], object],
    options: dict[str, object],
    message: str,
    small_store: CropStore,
    tmp_path: Path,
) -> None:
    store = changed(small_store, tmp_path / "store", change)
    with pytest.raises(UsageError, match=message) as caught:
        crop_sources(store, FitFrameOptions(**options), PAIRS)  # type: ignore[arg-type]
    assert str(caught.value).startswith(str(store.path))
    assert "\n" not in str(caught.value)


def test_real_footage_alone_is_enough_for_pairs(small_store: CropStore, tmp_path: Path) -> None:
    store = changed(small_store, tmp_path / "store", only("REAL"))
    source, _ = crop_sources(store, FitFrameOptions(), PAIRS)
    assert source.draw(2, (0,))[1].tolist() == [0, 1]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", None])
def test_a_shard_that_cannot_be_read_ends_a_fit_in_one_line(
    damage: bytes | None, small_store: CropStore, tmp_path: Path
) -> None:
    """Also when a thread reads it that draws batches ahead, behind the backend's back."""
    store = changed(small_store, tmp_path / "store", lambda index: None)
    held = training_rows(store).query("fold == 0")["shard"].unique()
    for shard in (store.path / "crops").glob("*.npz"):
        if shard.name in held:
            continue  # the crops to validate on are drawn before the fit
        shard.unlink()
        if damage is not None:
            shard.write_bytes(damage)
    command = ["fit", "frame", str(store.path), "--out", str(tmp_path / "run"), "--epochs", "1"]
    command += ["--backbone", "meso4", "--weights", "none", "--input-size", "32", "--steps", "2"]
    command += ["--batch-size", "4", "--fit", "validation_pairs=2"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert "this shard of the crop store cannot be read (" in line
    assert line.endswith("delete it and prepare the store again")
    assert "Traceback" not in result.output
    assert not (tmp_path / "run" / "best.keras").exists()


def test_weights_of_another_network_or_size_are_refused(
    small_store: CropStore, tmp_path: Path
) -> None:
    from dfd_training.models import build_frame_model, save_model

    start = tmp_path / "start.keras"
    save_model(build_frame_model(backbone="meso4", input_size=64, weights="none"), start)
    base = ["fit", "frame", str(small_store.path), "--out", str(tmp_path / "run")]
    base += ["--weights", str(start), "--fit", "validation_pairs=2"]
    for options, message in (
        (["--backbone", "meso4", "--input-size", "32"], "its weights are for crops of 64 pixels"),
        (["--input-size", "64"], "its backbone is meso4, not efficientnet_lite0"),
    ):
        result = CliRunner().invoke(main, [*base, *options])
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1
        assert f"{start}: {message}" in result.stderr
