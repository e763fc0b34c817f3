"""A set of face crops the whole way: cut tight, fitted, exported, and judged as it was cut."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dfd_edge.cli.command
import dfd_export.cli
import dfd_training.cli
from dfd_edge.bundle import Bundle
from dfd_edge.faces import FaceDetector, extract_crop
from dfd_edge.faces.crop import crop_region
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler
from dfd_training.data.store import CropStore
from dfd_training.data.table import read_table
from dfd_training.models import build_frame_model, save_model, with_crop_scale

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
#: Sides of the pictures over the face's: in the last one the detector sees no face.
WIDTHS = (1.05, 0.95, 0.45)


def run(command: click.Command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def generated(folder: Path) -> pd.DataFrame:
    """Crops of the sample clips, real and swapped, as a table."""
    detector = FaceDetector()
    rows = []
    for clip, label in (("real_astronaut", "REAL"), ("swapped_astronaut", "FAKE")):
        with VideoFile(SAMPLES / f"{clip}.mp4") as video:
            frames = [frame.image for frame in video.frames(Sampler(1.0))][:2]
        for number, frame in enumerate(frames):
            box = detector.detect(frame)[0].box
            for width in WIDTHS:
                name = f"{clip}_{number}_{width}.png"
                crop = extract_crop(frame, crop_region(box, width), 224)
                cv2.imwrite(str(folder / name), crop[:, :, ::-1])
                rows.append({"path": name, "label": label, "cropped": "yes"})
    return pd.DataFrame(rows).assign(
        split=["train"] * 3 + ["val"] * 3 + ["train"] * 3 + ["val"] * 3
    )


def real(folder: Path) -> pd.DataFrame:
    """Crops of DFDC and, of some of them, only the middle."""
    data = os.environ.get("DFD_DATA")
    if not data or not Path(data, "faces", "dfdc").is_dir():
        pytest.skip("DFD_DATA does not name development data with crops of DFDC")
    every = read_table(Path(data, "labels.csv"))
    every = every[every["path"].str.startswith("faces/dfdc")]
    fakes = pd.concat([every[(every["original"] != "") & (every["split"] == s)].head(3)
                       for s in ("train", "val")])  # fmt: skip
    rows = every[every["path"].isin([*fakes["path"], *fakes["original"]])].copy()
    for number, name in enumerate(rows["path"]):
        picture = cv2.imread(str(Path(data, name)))
        quarter = picture.shape[0] // 4 if number % 3 == 0 else 0
        picture = picture[quarter : picture.shape[0] - quarter, quarter:]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture)
    return rows


@pytest.mark.parametrize("pictures", [generated, real])
def test_a_set_of_face_crops_is_judged_as_it_was_cut(pictures, tmp_path: Path) -> None:
    table = pictures(tmp_path)
    table.to_csv(tmp_path / "labels.csv", index=False)
    train, export = dfd_training.cli.main, dfd_export.cli.main
    run(train, "prepare", tmp_path / "labels.csv", "--out", tmp_path / "store", "--workers", 1)
    store = CropStore(tmp_path / "store")
    assert store.crop_scale == 1.0
    assert set(store.index["path"]) == set(table["path"]), "every picture gives a crop"

    model = build_frame_model(backbone="custom_cnn", input_size=64, weights="none")
    carrier = with_crop_scale(model, store.crop_scale, detector=store.detector)
    save_model(carrier, tmp_path / "best.keras")
    bundle = tmp_path / "bundle"
    run(export, "bundle", tmp_path / "best.keras", "--crops", store.path, "--out", bundle)
    assert Bundle.load(bundle).manifest.frame.crop_scale == 1.0

    out = tmp_path / "evaluation"
    arguments = ["--bundle", bundle, "--draws", 5, "--out", out]
    run(train, "evaluate", tmp_path / "labels.csv", *arguments)
    files = pd.read_csv(out / "files.csv")
    assert set(files["path"]) == set(table.loc[table["split"] == "val", "path"])
    assert not files["verdict"].isin(["no_face", "error"]).any()

    lines = run(
        dfd_edge.cli.command.command,
        *("--json", "--cropped", "--model", bundle),
        *(tmp_path / path for path in table["path"]),
    ).splitlines()
    records = [json.loads(line) for line in lines]
    frames = [record for record in records if record["record"] == "frame"]
    assert len(frames) == len(table)
    by_path = store.index.set_index("path")
    for record in frames:
        (person,) = record["people"]
        x0, y0, x1, y1 = person["box"]
        path = Path(record["source"]).relative_to(tmp_path).as_posix()
        # The face that `prepare` found, to the tenth of a pixel that records have.
        assert max(x1 - x0, y1 - y0) == pytest.approx(by_path.loc[path, "face_px"], abs=0.2)
    verdicts = [record for record in records if record["record"] == "verdict"]
    assert not {verdict["label"] for verdict in verdicts} & {"no_face"}
    unseen = [np.isclose(by_path.loc[path, "face_px"], 224.0) for path in table["path"]]
    assert pictures is real or any(unseen), "the detector sees all faces: nothing is tested"
