"""Results of judgements: records, crops and evidence, and reports written from them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dfd_edge.bundle.manifest import DecisionSpec, Manifest
from dfd_edge.closing import Closing
from dfd_edge.judging.results import Record
from dfd_edge.serve.judging.store import Judgement
from dfd_edge.serve.settings import ServiceSettings
from dfd_edge.sinks.files import written_whole

if TYPE_CHECKING:
    from dfd_edge.report.pictures import CropPicture

_KINDS = ("records", "crops", "evidence")


@dataclass(frozen=True, slots=True)
class Rules:
    """How a judgement was found.

    Attributes:
        run: Its `run` record.
        still: Whether the file is a picture.
        manifest: Manifest of the bundle that judged.
        decision: Decision rules of the variant that judged, for films.
    """

    run: Record
    still: bool
    manifest: Manifest
    decision: DecisionSpec


class ResultsWriter(Closing):
    """Writes the results of one judgement as they come. Use as a context manager.

    Args:
        paths: Files of the records, crops and evidence, in JSON Lines.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self._files: dict[str, IO[str]] = {}
        for kind, path in paths.items():
            self._files[kind] = path.open("w", encoding="ascii", newline="\n")

    def record(self, line: str) -> None:
        """Writes a record; readers see it at once."""
        self._files["records"].write(line + "\n")
        self._files["records"].flush()

    def crop(self, line: str) -> None:
        """Writes a crop."""
        self._files["crops"].write(line + "\n")

    def evidence(self, line: str) -> None:
        """Writes an evidence map."""
        self._files["evidence"].write(line + "\n")

    def close(self) -> None:
        """Closes the files. Safe to call twice."""
        for file in self._files.values():
            file.close()


class Results:
    """The folders of results.

    Args:
        settings: Where they are.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._folder = settings.results
        self._bundles = settings.bundles

    def writer(self, id_: str) -> ResultsWriter:
        """Returns what writes the results of a judgement, in place of those of an earlier try."""
        return ResultsWriter({kind: self.path(id_, kind) for kind in _KINDS})

    def path(self, id_: str, kind: str) -> Path:
        """Returns a file of a judgement: its "records", "crops" or "evidence"."""
        return self._folder / f"{id_}.{kind}.jsonl"

    def lines(self, id_: str, kind: str, after: int = 0) -> Iterator[tuple[int, str]]:
        """Yields whole lines and their numbers, from 1, without the first `after` of them."""
        try:
            file = self.path(id_, kind).open(encoding="ascii")
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, start=1):
                if number > after and line.endswith("\n"):
                    yield number, line.rstrip("\n")

    def delete(self, id_: str) -> None:
        """Deletes the results of a judgement."""
        for kind in _KINDS:
            self.path(id_, kind).unlink(missing_ok=True)

    def keep_bundle(self, about: dict[str, Any]) -> None:
        """Keeps what reports need of the bundle that judges.

        Args:
            about: `bundle`, `manifest`, `decision` and `run` of a worker.
        """
        path = self._bundle(about["bundle"], about["run"]["precision"])
        wanted = {name: about[name] for name in ("manifest", "decision")}
        with written_whole(path) as partial:
            partial.write_text(json.dumps(wanted), "utf-8")

    def rules(self, judgement: Judgement) -> Rules:
        """Returns how a judgement that is done was found."""
        run = json.loads(next(line for _, line in self.lines(judgement.id, "records")))
        about = json.loads(next(line for _, line in self.lines(judgement.id, "crops")))
        path = self._bundle(judgement.bundle, run["precision"])
        kept = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest.from_json(kept["manifest"])
        return Rules(run, about["still"], manifest, DecisionSpec.from_json(kept["decision"]))

    def report(self, judgement: Judgement) -> str:
        """Returns the report of a judgement: the page that `dfd-edge --report` writes.

        Args:
            judgement: One that is done.
        """
        from dfd_edge.report.collector import Collector, SourceNotes  # noqa: PLC0415 - OpenCV
        from dfd_edge.report.page import render  # noqa: PLC0415

        rules = self.rules(judgement)
        records = (json.loads(line) for _, line in self.lines(judgement.id, "records", 1))
        crops = [json.loads(line) for _, line in self.lines(judgement.id, "crops", 1)]
        collector = Collector([], rules.run)
        notes = SourceNotes(judgement.name, still=rules.still, sha256=judgement.sha256)
        collector.sources[judgement.name] = notes
        for record in records:
            if record["record"] == "verdict":  # behind the last frame, as when it was judged
                for crop in crops:
                    notes.person(crop["track"]).crops.add(_picture(crop))
            collector.record(record)
        return render(collector, rules.manifest, rules.decision)

    def _bundle(self, hash_: str, precision: str) -> Path:
        return self._bundles / f"{hash_}-{precision}.json"


def _picture(crop: dict[str, Any]) -> CropPicture:
    from dfd_edge.report.pictures import CropPicture  # noqa: PLC0415 - loads OpenCV

    evidence = crop["evidence"]
    return CropPicture(
        time_s=crop["time_s"],
        p_frame=crop["p_frame"],
        plain=base64.b64decode(crop["plain"]),
        evidence=None if evidence is None else base64.b64decode(evidence),
        side=crop["side"],
    )
