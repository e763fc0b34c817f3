"""Descriptions in Keras model files, read without building anything from them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from dfd_edge.errors import UsageError
from dfd_export.foreign.refusals import check_code, describe_archive, describe_file, describe_folder

_HDF5_START = b"\x89HDF\r\n\x1a\n"
_ZIP_START = b"PK"
_HDF5_SUFFIXES = (".h5", ".hdf5")
_ARCHIVE_ENTRIES = {"metadata.json", "config.json", "model.weights.h5"}

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A Keras model file.

    Attributes:
        path: The file.
        config: The model as the file describes it: `class_name`, `config` with its layers.
        keras_version: Version of the Keras that wrote it; "" where the file does not say.
        loss: Name of the loss that it was compiled with; "" where the file does not say.
    """

    path: Path
    config: Config
    keras_version: str
    loss: str

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Reads the description of a model.

        Raises:
            UsageError: The file is missing or damaged, holds no whole Keras model, or holds code.
        """
        if path.is_dir():
            raise UsageError(f"{path}: {describe_folder(path)}")
        try:
            with path.open("rb") as file:
                start = file.read(len(_HDF5_START))
        except FileNotFoundError:
            raise UsageError(f"{path}: no such model file") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        if start == _HDF5_START:
            _check_suffix(path, _HDF5_SUFFIXES, "an HDF5 file")
            found = _read_hdf5(path)
        elif start.startswith(_ZIP_START):
            if (other := describe_archive(path)) is not None:
                raise UsageError(f"{path}: {other}")
            _check_suffix(path, (".keras",), "a zip archive")
            found = _read_archive(path)
        elif (other := describe_file(path, start)) is not None:
            raise UsageError(f"{path}: {other}")
        else:
            raise UsageError(
                f"{path}: not a Keras model file: it starts with {start!r}, neither as HDF5 (.h5) "
                "nor as a .keras archive: give the file that model.save() wrote"
            )
        check_code(path, found.config)
        return found


def _check_suffix(path: Path, wanted: tuple[str, ...], what: str) -> None:
    """Keras reads weights by the name's ending."""
    if path.suffix not in wanted:
        raise UsageError(f"{path}: {what} under another ending: rename it to {wanted[0]}")


def _read_hdf5(path: Path) -> ModelFile:
    try:
        with h5py.File(path, "r") as file:
            attributes = {
                name: _text(file.attrs.get(name))
                for name in ("model_config", "keras_version", "training_config")
            }
            has_weights = "model_weights" in file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: a damaged HDF5 file ({_first_line(error)})") from error
    if not attributes["model_config"] or not has_weights:
        raise UsageError(
            f"{path}: holds weights or other arrays, but no model: build the model as its notebook "
            "does, load the weights into it, and save it with model.save('model.keras')"
        )
    config = _parse(path, attributes["model_config"])
    training = _parse(path, attributes["training_config"] or "{}")
    return ModelFile(path, config, attributes["keras_version"], _loss_name(training.get("loss")))


def _read_archive(path: Path) -> ModelFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if names != _ARCHIVE_ENTRIES:
                raise UsageError(
                    f"{path}: not a .keras archive of weights and layers alone: it holds "
                    f"{', '.join(sorted(names))[:200]!r}, not {', '.join(sorted(_ARCHIVE_ENTRIES))}"
                )
            texts = [archive.read(name).decode() for name in ("config.json", "metadata.json")]
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise UsageError(f"{path}: a damaged .keras archive ({_first_line(error)})") from error
    config, metadata = (_parse(path, text) for text in texts)
    compiled = config.get("compile_config")
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    return ModelFile(path, config, str(metadata.get("keras_version", "")), _loss_name(loss))


def _parse(path: Path, text: str) -> Config:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path}: its description of the model is not JSON ({_first_line(error)})"
        ) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: its description of the model is no JSON object")
    return value


def _loss_name(loss: object) -> str:
    """The loss as one word: files name it, or describe it as an object or a list of one."""
    match loss:
        case str():
            return loss
        case {"class_name": "function", "config": str(name)}:
            return name
        case {"class_name": str(name)}:
            return name
        case [single]:
            return _loss_name(single)
    return ""


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
