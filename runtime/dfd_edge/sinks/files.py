"""Output files that appear whole or not at all."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from dfd_edge.errors import OutputError, UsageError
from dfd_edge.sinks.sink import Sink


def check_outputs(outputs: dict[str, Path | None], sources: Iterable[Path]) -> None:
    """Refuses outputs that would destroy something or cannot be written.

    Args:
        outputs: Path by option; None where the option was not given.
        sources: The files that are read: those to be judged, certificates, keys.

    Raises:
        UsageError: A path is empty, no ordinary file, one of the files that are read, or given
            twice, or its folder does not exist or cannot be written to.
    """
    wanted = {option: path for option, path in outputs.items() if path is not None}
    seen: dict[Path, str] = {}
    read = {source.resolve() for source in sources}
    for option, path in wanted.items():
        target = path.resolve()
        try:
            if not path.name or path.is_dir():
                raise UsageError(f"{option}: {str(path)!r} is no file name")
            if path.exists() and not path.is_file():
                raise UsageError(f"{option}: {path} is not an ordinary file and is not replaced")
        except OSError as error:
            raise UsageError(f"{option}: {path} cannot be written ({error.strerror})") from error
        if target in read:
            raise UsageError(f"{option}: {path} is a file that is read; give another name")
        if target in seen:
            raise UsageError(f"{option}: {path} is also given to {seen[target]}")
        seen[target] = option
        with written_whole(path):
            pass  # fails now rather than after minutes of work


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` at the end.

    The temporary file keeps the suffix of `path`. It is removed when the block raises, or when
    nothing was written in it.

    Raises:
        UsageError: The folder does not exist or cannot be written to.
        OutputError: The file could not be put in its place at the end.
    """
    target = path.resolve()  # a link stays a link
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        partial.write_bytes(b"")  # leftovers of a killed run must not get the name
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield partial
        try:
            if partial.stat().st_size:
                partial.replace(target)
        except OSError as error:
            raise OutputError(f"{path}: cannot be put in place ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may have gone
            partial.unlink(missing_ok=True)


class FileSink(Sink):
    """A sink that fills a file, which appears when the block is left, whole or not at all.

    After an error in the block the file stays as it was before.

    Args:
        path: File to write.

    Raises:
        UsageError: On entering: the folder does not exist or cannot be written to.
        OutputError: On leaving: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = contextlib.ExitStack()

    @abstractmethod
    def start(self, partial: Path) -> None:
        """Opens the file under its temporary name."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the file.

        Raises:
            DfdError: It cannot be completed.
        """

    @abstractmethod
    def discard(self) -> None:
        """Closes the file, which is then removed."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            self.start(opened.enter_context(written_whole(self.path)))
            self._whole = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.discard()
            self._whole.__exit__(kind, error, traceback)
            return
        with self._whole:
            self.finish()
