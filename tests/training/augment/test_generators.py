"""Fakes made by trained networks: they train, stay in their fold and lie beside the originals."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from dfd_edge.errors import UsageError
from dfd_training.augment.generators.fitting import GeneratorFitOptions
from dfd_training.augment.generators.generate import (
    REBUILT,
    REPAINTED,
    SWAPPED,
    UPSCALED,
    GenerateOptions,
    Networks,
    generate_redrawn,
    generate_swaps,
)
from dfd_training.augment.generators.heads import (
    HEAD_PLANS,
    HeadPlan,
    HeadTrainer,
    build_head_model,
    fit_heads,
)
from dfd_training.augment.generators.redraw import Upscaler, redraw_by
from dfd_training.augment.generators.swap import (
    People,
    choose_donor,
    collect_faces,
    fit_swap,
    load_swap,
)
from dfd_training.augment.generators.swap_model import align, place_back
from dfd_training.augment.generators.writer import FakeWriter, real_clips
from dfd_training.cli import main
from dfd_training.data.store import CropStore, Shard, StoredCrop, shard_name

FEW = GenerateOptions(swap_crops=3, swaps=1, head_crops=3, photographs=2)


@pytest.fixture
def own_store(small_store: CropStore, tmp_path: Path) -> CropStore:
    """A copy of the small store that a test may write into."""
    shutil.copytree(small_store.path, tmp_path / "store")
    return CropStore(tmp_path / "store")


@pytest.fixture(scope="session")
def fitted(small_store: CropStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a swap autoencoder that was trained for a few steps."""
    out = tmp_path_factory.mktemp("generators")
    fitting = _run(
        *("generate", "fit", small_store.path, "--out", out, "--only", "swap"),
        *("--minutes", 0.001, "--steps", 2),
    )
    assert fitting.exit_code == 0, fitting.output
    assert "swap autoencoder: loss" in fitting.stdout
    return out


def _package(folder: Path, *, factor: int = 2, spoil: str = "") -> Path:
    """A package as npm writes it, with one tiny network in the form of TensorFlow.js."""
    picture = keras.Input((None, None, 3), name="LR")
    values = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="F")(picture)
    values = keras.layers.UpSampling2D(factor, name="up")(values)
    model = keras.Model(picture, keras.layers.Conv2D(3, 3, padding="same", name="SR")(values))
    layers = [{"class_name": "InputLayer", "name": "LR", "inbound_nodes": []}]
    layers[0]["config"] = {"name": "LR", "batch_input_shape": [None, None, None, 3]}
    before = "LR"
    for layer in model.layers[1:]:
        kind = spoil if spoil and layer.name == "up" else type(layer).__name__
        config = {**layer.get_config(), "batch_input_shape": None}
        nodes = [[[before, 0, 0, {}]]]
        layers.append(
            {"class_name": kind, "name": layer.name, "config": config, "inbound_nodes": nodes}
        )
        before = layer.name
    weights = [
        (f"{layer.name}/{w.name}", w.numpy()) for layer in model.layers for w in layer.weights
    ]
    topology = {
        "modelTopology": {
            "model_config": {
                "config": {
                    "layers": layers,
                    "input_layers": [["LR", 0, 0]],
                    "output_layers": [[before, 0, 0]],
                }
            }
        },
        "weightsManifest": [
            {
                "paths": ["w.bin"],
                "weights": [
                    {"name": name, "shape": list(value.shape), "dtype": "float32"}
                    for name, value in weights
                ],
            }
        ],
    }
    path = folder / "networks.tgz"
    raw = b"".join(value.astype("<f4").tobytes() for _, value in weights)
    with tarfile.open(path, "w:gz") as archive:
        texts = {"model.json": json.dumps(topology, default=str).encode(), "w.bin": raw}
        for name, text in texts.items():
            entry = tarfile.TarInfo(f"package/models/x{factor}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    return path


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _tiny(rounds: int) -> GeneratorFitOptions:
    return GeneratorFitOptions(rounds=rounds, batch_size=2, steps=12)


@pytest.mark.slow
def test_training_a_swap_autoencoder_lowers_its_loss_and_goes_on_after_a_break(
    small_store: CropStore, tmp_path: Path
) -> None:
    first = fit_swap(small_store, tmp_path, _tiny(2))
    second = fit_swap(small_store, tmp_path, _tiny(4))
    assert first.losses is not None
    assert second.losses is not None
    assert second.rounds == 4
    assert second.losses[:2] == first.losses
    # The third round starts from the weights of the second, not anew.
    assert second.losses[2] < 0.9 * first.losses[0]
    assert second.losses[3] < 0.9 * first.losses[0]


@pytest.mark.slow
def test_training_heads_lowers_their_loss_with_the_critic_in_play(
    small_store: CropStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeadTrainer, "WARM_ROUNDS", 1)
    # Rounds of 15 batches of 2 left the last loss between 0.83 and 0.93 of the first.
    options = GeneratorFitOptions(rounds=4, batch_size=2, steps=30)
    state = fit_heads(small_store, tmp_path, HEAD_PLANS[0], options)
    assert state.losses is not None
    assert state.losses[-1] < 0.8 * state.losses[0]


def _check_made(store: CropStore, generator: str) -> pd.DataFrame:
    """Whatever makes them: fakes have their real crop's place, time and size, and other pixels."""
    rows = CropStore(store.path).made
    rows = rows[rows["generator"] == generator]
    assert len(rows)
    assert list(rows.columns) == list(store.index.columns)
    assert set(rows["label"]) == {"FAKE"}
    for path, part in rows.groupby("path"):
        shard = Shard.load(store.path / "crops" / shard_name(str(path)))
        assert list(part["position"]) == list(range(len(shard)))
        real_rows = store.index[store.index["path"] == part["original"].iloc[0]]
        real = store.shard(str(real_rows["shard"].iloc[0]))
        for row, number in zip(part.itertuples(), range(len(shard)), strict=True):
            twin = int(np.flatnonzero(real.time_s == shard.time_s[number])[0])
            fake, original = (
                stored.crop(place, crop_scale=1.5)
                for stored, place in ((shard, number), (real, twin))
            )
            np.testing.assert_array_equal(fake.box, original.box)
            np.testing.assert_array_equal(fake.landmarks, original.landmarks)
            assert fake.image.shape == original.image.shape
            assert (fake.image != original.image).any()
            assert row.face_px == pytest.approx(real.face_px[twin])
            facts = real_rows[real_rows["position"] == twin].iloc[0]
            assert (row.group, row.split, row.source) == (facts.group, facts.split, facts.source)
            assert row.time_s == facts.time_s
    return rows


def _changes(store: CropStore, row: pd.Series) -> NDArray[np.int64]:
    """How far a made crop differs from its real one, [side, side, 3]."""
    fake = Shard.load(store.path / "crops" / row["shard"]).crop(
        int(row["position"]), crop_scale=1.5
    )
    real_rows = store.index[store.index["path"] == row["original"]]
    twin = real_rows[real_rows["time_s"] == row["time_s"]].iloc[0]
    real = store.crop(twin["shard"], int(twin["position"]))
    return np.abs(fake.image.astype(np.int64) - real.image)


def _edges(change: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    border = max(2, len(change) // 20)
    return [change[:border], change[-border:], change[:, :border], change[:, -border:]]


def test_swaps_lie_beside_the_crops_that_they_were_made_from(
    own_store: CropStore, fitted: Path
) -> None:
    model, people = load_swap(fitted)
    generate_swaps(own_store, model, people, FEW)
    rows = _check_made(own_store, SWAPPED)
    # Nobody is swapped for himself, and the identity is of the clip's own fold.
    fold_of = dict(zip(people.groups, people.folds, strict=True))
    for row in rows.itertuples():
        assert row.model != row.group
        assert fold_of[row.model] == fold_of[row.group]


def test_a_swap_changes_the_face_and_leaves_the_border(own_store: CropStore, fitted: Path) -> None:
    model, people = load_swap(fitted)
    generate_swaps(own_store, model, people, FEW)
    row = CropStore(own_store.path).made.iloc[0]
    change = _changes(own_store, row)
    assert change.max() > 10
    assert max(edge.max() for edge in _edges(change)) == 0


def test_reconstructed_heads_cover_the_whole_crop(own_store: CropStore) -> None:
    models = {plan.name: build_head_model(plan) for plan in HEAD_PLANS}
    generate_redrawn(own_store, Networks(models), REBUILT, FEW)
    rows = _check_made(own_store, REBUILT)
    assert set(rows["model"]) <= set(models)
    assert (_changes(own_store, rows.iloc[0]).mean(axis=(0, 1)) > 0).all()


def test_repainted_faces_leave_all_but_the_face_to_the_camera(
    own_store: CropStore, tmp_path: Path
) -> None:
    models = {plan.name: build_head_model(plan) for plan in HEAD_PLANS}
    generate_redrawn(own_store, Networks(models, Upscaler(_package(tmp_path))), REPAINTED, FEW)
    rows = _check_made(own_store, REPAINTED)
    assert {"x2"} < set(rows["model"]) <= {"x2", *models}
    for _, row in rows.iterrows():
        change = _changes(own_store, row)
        assert change.max() > 5
        assert max(edge.max() for edge in _edges(change)) == 0


def test_upscaled_heads_are_made_from_a_package_of_networks(
    own_store: CropStore, tmp_path: Path
) -> None:
    upscaler = Upscaler(_package(tmp_path))
    assert upscaler.factors == (2,)
    generate_redrawn(own_store, Networks(upscaler=upscaler), UPSCALED, FEW)
    assert set(_check_made(own_store, UPSCALED)["model"]) == {"x2"}


def test_generators_add_to_each_others_table_and_repeat_nothing(
    own_store: CropStore, fitted: Path, tmp_path: Path
) -> None:
    model, people = load_swap(fitted)
    upscaler = Upscaler(_package(tmp_path))
    swaps = generate_swaps(own_store, model, people, FEW)
    assert swaps > 0
    assert generate_redrawn(own_store, Networks(upscaler=upscaler), UPSCALED, FEW) > 0
    before = CropStore(own_store.path).made
    assert set(before["generator"]) == {SWAPPED, UPSCALED}
    assert generate_swaps(own_store, model, people, FEW) == 0
    pd.testing.assert_frame_equal(CropStore(own_store.path).made, before)


def test_making_anew_draws_the_same_pictures(own_store: CropStore, tmp_path: Path) -> None:
    upscaler = Upscaler(_package(tmp_path))
    generate_redrawn(own_store, Networks(upscaler=upscaler), UPSCALED, FEW)
    rows = CropStore(own_store.path).made
    shard = own_store.path / "crops" / rows["shard"].iloc[0]
    before = shard.read_bytes()
    (own_store.path / "made.csv").unlink()
    generate_redrawn(own_store, Networks(upscaler=upscaler), UPSCALED, FEW)
    assert shard.read_bytes() == before


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_identities_never_come_from_another_fold(fold: int) -> None:
    rng = np.random.default_rng(fold)
    count = 30
    people = People(
        groups=tuple(f"g{number}" for number in range(count)),
        folds=tuple(number % 3 for number in range(count)),
        colours=tuple((float(v), 140.0, 150.0) for v in rng.uniform(60, 200, count)),
    )
    mine = f"g{fold}"
    drawn = {choose_donor(people, mine, fold, (120.0, 140.0, 150.0), rng) for _ in range(60)}
    assert len(drawn) > 1
    assert all(number is not None and people.folds[number] == fold for number in drawn)
    assert people.groups.index(mine) not in drawn


def test_somebody_alone_in_a_fold_is_not_swapped() -> None:
    people = People(("a", "b"), (0, 1), ((120.0, 140.0, 150.0), (120.0, 140.0, 150.0)))
    assert choose_donor(people, "a", 0, (120.0, 140.0, 150.0), np.random.default_rng(0)) is None


def test_rows_marked_val_are_not_worked_on(own_store: CropStore) -> None:
    index = pd.read_csv(own_store.path / "index.csv", keep_default_na=False)
    held = sorted(index["group"].unique())[0]
    index.loc[index["group"] == held, "split"] = "val"
    index.to_csv(own_store.path / "index.csv", index=False)
    store = CropStore(own_store.path)
    assert all(work.group != held for work in real_clips(store))
    assert held not in collect_faces(store)[1].groups


def test_an_aligned_face_goes_back_to_its_place(astronaut_crop: StoredCrop) -> None:
    face = align(astronaut_crop, 128)
    placed, covered = place_back(face.image, face.matrix, astronaut_crop.image.shape[0])
    inside = covered > 0.99
    assert inside.mean() > 0.05
    error = np.abs(placed.astype(float) - astronaut_crop.image)[inside]
    assert error.mean() < 6


def test_a_picture_of_another_size_is_refused(own_store: CropStore) -> None:
    work = real_clips(own_store)[0]
    with FakeWriter(own_store, "x") as writer, pytest.raises(UsageError, match="shape"):
        writer.add(work, 0, work.positions[:1], [np.zeros((8, 8, 3), np.uint8)], model="")
    assert not (own_store.path / "made.csv").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("missing", "not a package"),
        ("text", "not a package"),
        ("layer", "Lambda"),
        ("x5", "2 to 4"),
    ],
)
def test_a_package_that_cannot_be_used_is_refused_in_one_line(
    small_store: CropStore, tmp_path: Path, spoil: str, words: str
) -> None:
    if spoil == "layer":
        path = _package(tmp_path, spoil="Lambda")
    elif spoil == "x5":
        path = _package(tmp_path, factor=5)
    else:
        path = tmp_path / "none.tgz"
        if spoil == "text":
            path.write_text("no archive")
    result = _run("generate", "make", small_store.path, "--upscaler", path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith(f"error: {path}")
    assert "Traceback" not in result.output


def test_missing_generators_give_one_line(small_store: CropStore, tmp_path: Path) -> None:
    nothing = _run("generate", "make", small_store.path)
    assert nothing.exit_code == 2
    assert "--generators" in nothing.stderr
    absent = _run("generate", "make", small_store.path, "--generators", tmp_path / "absent")
    assert absent.exit_code == 2
    assert "dfd-train generate fit" in absent.stderr
    no_store = _run("generate", "fit", tmp_path / "absent", "--out", tmp_path / "out")
    assert no_store.exit_code == 2
    assert "dfd-train prepare" in no_store.stderr


def test_a_spoilt_file_of_weights_is_named(
    small_store: CropStore, fitted: Path, tmp_path: Path
) -> None:
    shutil.copytree(fitted, tmp_path / "spoilt")
    (tmp_path / "spoilt" / "swap" / "model.weights.h5").write_bytes(b"spoilt")
    result = _run("generate", "make", small_store.path, "--generators", tmp_path / "spoilt")
    assert result.exit_code == 2
    assert "model.weights.h5" in result.stderr


def test_make_from_the_command_line_makes_what_it_has_networks_for(
    own_store: CropStore, fitted: Path, tmp_path: Path
) -> None:
    making = _run(
        *("generate", "make", own_store.path),
        *("--generators", fitted, "--upscaler", _package(tmp_path)),
        *("--clip-crops", 2, "--swaps", 1, "--head-crops", 2, "--photographs", 1),
    )
    assert making.exit_code == 0, making.output
    assert f"{REBUILT}: skipped" in making.stdout
    assert set(CropStore(own_store.path).made["generator"]) == {SWAPPED, UPSCALED, REPAINTED}


@pytest.mark.parametrize("plan", HEAD_PLANS, ids=lambda plan: plan.name)
def test_heads_of_any_size_come_back_at_their_size(plan: HeadPlan) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (77, 77, 3), dtype=np.uint8)
    drawn = redraw_by(build_head_model(plan), plan.shrink)(picture)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
