"""The fastest settings that were found on a machine: `dfd-edge --settings FILE`.

The file is TOML. `dfd-bench sweep --settings FILE` writes it; by hand it is written as quickly:

    provider = "cpu"
    precision = "int8"
    threads = 1

    [machine]
    processor = "..."
    cores = 2
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import click

from dfd_edge.errors import DfdError, UsageError
from dfd_edge.inference.names import PRECISION_CHOICES, PROVIDER_CHOICES
from dfd_edge.inference.threads import MAX_THREADS

_MACHINE = ("processor", "cores")


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Options of `Detector.load`, and the machine that they were chosen on.

    Attributes:
        provider, precision, threads: As in `Detector.load`.
        processor: Model of that machine's processor; None where the file does not say.
        cores: Its cores that the process could use; None where the file does not say.

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> settings = MachineSettings.read("settings.toml")
        >>> detector = Detector.load(**settings.options)
    """

    provider: str = "auto"
    precision: str = "auto"
    threads: int = 1
    processor: str | None = None
    cores: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("provider", PROVIDER_CHOICES), ("precision", PRECISION_CHOICES)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"{name} is {value!r}; give one of {', '.join(known)}")
        for name, most in (("threads", MAX_THREADS), ("cores", None)):
            value = getattr(self, name)
            if value is None and most is None:
                continue
            if type(value) is not int or value < 1 or (most is not None and value > most):
                limit = f"1 to {most}" if most else "1 or more"
                raise UsageError(f"{name} is {value!r}; give a whole number of {limit}")
        if not isinstance(self.processor, str | None):
            raise UsageError(f"processor is {self.processor!r}; give its name in quotes")

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `Detector.load`."""
        return {"provider": self.provider, "precision": self.precision, "threads": self.threads}

    @property
    def difference(self) -> str | None:
        """How this machine differs from theirs; None where it does not."""
        from dfd_edge.inference.processor import processor_name, usable_cores  # noqa: PLC0415

        here = {"processor": processor_name(), "cores": max(1, int(usable_cores()))}
        made = {"processor": self.processor, "cores": self.cores}
        for name in _MACHINE:
            if made[name] is not None and made[name] != here[name]:
                return f"made with {name} {made[name]}, this machine has {here[name]}"
        return None

    @classmethod
    def made_here(cls, *, provider: str, precision: str, threads: int) -> Self:
        """Returns settings that were chosen on this machine."""
        from dfd_edge.inference.processor import processor_name, usable_cores  # noqa: PLC0415

        return cls(provider, precision, threads, processor_name(), max(1, int(usable_cores())))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads a file of settings.

        Raises:
            UsageError: It cannot be read, is no TOML, has an unknown key or a value out of range.
        """
        import tomllib  # noqa: PLC0415 - few starts read such a file

        try:
            found = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: not a file of settings in TOML ({error})") from error
        machine = found.pop("machine", {})
        if not isinstance(machine, dict):
            raise UsageError(f"{path}: machine is {machine!r}; give a table [machine]")
        known = ("provider", "precision", "threads")
        for keys, names in ((found, known), (machine, _MACHINE)):
            if unknown := sorted(set(keys) - set(names)):
                raise UsageError(
                    f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(names)}"
                )
        try:
            return cls(**found, **machine)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Writes them to a file, whole or not at all.

        Raises:
            UsageError: The file cannot be written.
        """
        import json  # noqa: PLC0415 - only `dfd-bench` writes

        from dfd_edge.sinks.files import written_whole  # noqa: PLC0415

        values = asdict(self)
        lines = [f"{name} = {json.dumps(values[name])}" for name in self.options]
        lines += ["", "[machine]"]
        lines += [f"{n} = {json.dumps(values[n])}" for n in _MACHINE if values[n] is not None]
        with written_whole(path) as partial:
            partial.write_text("\n".join(lines) + "\n", "utf-8")


def use_settings(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Callback of `--settings`: the file's values become the defaults of their options."""
    if path is None:
        return
    try:
        settings = MachineSettings.read(path)
    except DfdError as error:
        click.echo(f"dfd-edge: error: --settings: {error}", err=True)
        context.exit(error.exit_code)
    if (difference := settings.difference) is not None:
        click.echo(f"dfd-edge: note: --settings {path}: {difference}", err=True)
    context.default_map = {**(context.default_map or {}), **settings.options}


settings_flag = click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=use_settings,
    help="Provider, precision and threads that `dfd-bench sweep` found; other options win over it.",
)
