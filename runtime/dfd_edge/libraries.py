"""The required libraries: whether each can be used here, and how to mend it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from dfd_edge.version import is_allowed, requirement_of, version_of


class BrokenLibrary(ImportError):
    """A library is there and cannot be used; the text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Library:
    """A library as it is found.

    Attributes:
        name: Name of its distribution.
        value: Its version, or what is wrong, in short.
        fault: How to mend it where it cannot be used, else None.
        note: What else is to be said.
    """

    name: str
    value: str
    fault: str | None = None
    note: str | None = None


_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
#: Modules, each with the distributions that bring it, the usual one first.
_MODULES = {"numpy": ("numpy",), "cv2": _OPENCV, "av": ("av",), "click": ("click",)}


def libraries() -> Iterator[Library]:
    """Imports each library and reports the outcome."""
    for module, distributions in _MODULES.items():
        found = {name: version for name in distributions if (version := version_of(name))}
        name = next(iter(found), distributions[0])
        try:
            if module == "cv2":
                check_opencv()
            imported = importlib.import_module(module)
        except Exception as error:  # a library that is damaged can raise anything
            value = found.get(name, "not installed")
            yield Library(name, value, fault=import_advice(error, name, installed=bool(found)))
            continue
        version = found.get(name) or str(getattr(imported, "__version__", "unknown version"))
        note = _overwritten(list(found)) if len(found) > 1 else _version_advice(name, version)
        yield Library(name, version, note=note)


def wrong_version() -> str | None:
    """Names a library of a version that this project does not allow, and how to mend it.

    pip refuses such a version, but for one that is installed afterwards.
    """
    for name, version in _installed().items():
        if advice := _version_advice(name, version):
            return f"{name} {version} is installed; {advice}"
    return None


def reinstall_advice() -> str:
    """Returns how to reinstall every library, where it is not known which one is damaged."""
    wanted = " ".join(f"'{_requirement(name)}'" for name in _installed())
    return f"run `pip install --force-reinstall {wanted}`"


def _installed() -> dict[str, str]:
    names = [name for names in _MODULES.values() for name in names] + ["onnxruntime"]
    return {name: version for name in names if (version := version_of(name))}


def _requirement(name: str) -> str:
    return _headless() if name == _OPENCV[1] else requirement_of(name)


def _version_advice(name: str, version: str) -> str | None:
    wanted = _requirement(name)
    if is_allowed(version, wanted):
        return None
    return f"dfd-edge needs {wanted}: run `pip install '{wanted}'`"


def check_opencv() -> None:
    """Imports OpenCV and makes sure that it is whole.

    Raises:
        BrokenLibrary: Its files are gone: two of its distributions write to the same folder, and
            whichever is removed takes the files of the other with it.
        ImportError: It cannot be imported.
    """
    import cv2  # noqa: PLC0415 - slow, and it may be what is broken

    if not hasattr(cv2, "__version__"):
        found = [name for name in _OPENCV if version_of(name)]
        raise BrokenLibrary(f"OpenCV is without its files: {_overwritten(found or [_OPENCV[0]])}")


def opens_windows() -> bool:
    """Returns whether the installed OpenCV can open windows, as the headless ones cannot."""
    import cv2  # noqa: PLC0415

    return not getattr(getattr(cv2, "version", None), "headless", False)


def import_advice(error: Exception, name: str | None = None, *, installed: bool = True) -> str:
    """Returns one line on how to mend a library that cannot be imported.

    Args:
        error: What importing it raised.
        name: Its distribution, where that is known.
        installed: Whether it is installed.
    """
    if isinstance(error, BrokenLibrary):
        return str(error)
    text = str(error) or type(error).__name__
    if "failed to map segment" in text or "annot allocate memory" in text:
        return f"there is not enough memory to load a library ({text})"
    if "libGL" in text or "libxcb" in text or "libgthread" in text:
        return (
            f"OpenCV needs a system library ({text}): on Debian or Ubuntu run "
            "`apt install libgl1 libxcb1 libglib2.0-0`, on Fedora `dnf install mesa-libGL libxcb`; "
            "or where no window is wanted, `pip uninstall -y opencv-python`, then "
            f"`pip install '{_headless()}'`"
        )
    if name is None:
        return f"a library cannot be imported ({text}); run `pip install 'dfd-edge[cpu]'`"
    if not installed:
        return f"run `pip install '{requirement_of(name)}'`"
    return (
        f"cannot be imported ({text}): run "
        f"`pip install --force-reinstall --no-deps '{requirement_of(name)}'`"
    )


def _overwritten(distributions: list[str]) -> str:
    cause = f"{' and '.join(distributions)} overwrite each other: " if distributions[1:] else ""
    return (
        f"{cause}run `pip uninstall -y {' '.join(distributions)}`, then `pip install "
        f"'{requirement_of(_OPENCV[0])}'`, or '{_headless()}' where no window is wanted"
    )


def _headless() -> str:
    return requirement_of(_OPENCV[0]).replace(_OPENCV[0], _OPENCV[1])
