"""Judges damaged media and manifests, forged bundles, odd arguments; counts what comes.

    python tests/fuzz/campaign.py --cases 50000

Case N of a kind is the same in each run with the same seed, but for manifests: each run has keys of
its own. Every case that ends in neither a
verdict nor a clear error is kept, with a line on how to run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from judging import Answer  # noqa: E402
from media_seeds import make_seeds  # noqa: E402
from mutations import mutate  # noqa: E402
from signed_seeds import SignedSeed, make_signed_seeds  # noqa: E402

KINDS = ("media", "bundle", "arguments", "provenance")
#: Outcomes that the program promises.
GOOD = ("verdict", "error")
#: Seconds of processor time that one case may take, and seconds after which it is given up.
MAX_S = 10.0
PATIENCE_S = 60.0
#: Cases of one kind of failure that are kept.
_KEPT = 3
#: A process judges so many cases before it makes room for a fresh one.
_CASES_A_PROCESS = 5000


class Judge:
    """A process that judges, started again after it died; for one thread."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def ask(self, kind: str, path: Path, case: str = "") -> Answer:
        """Has a case judged. A process that dies of it, or takes too long, is an answer too."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        question = {"kind": kind, "path": str(path), "case": case}
        start_s = time.perf_counter()
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            # The first answer waits for the imports, too.
            patience_s = PATIENCE_S * (2 if self._asked == 0 else 1)
            ready, _, _ = select.select([process.stdout], [], [], patience_s)
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [process.stdout], b""
        seconds = time.perf_counter() - start_s
        self._asked += 1
        if line:
            answer = Answer(**json.loads(line))
            if answer.seconds > MAX_S:
                answer = Answer("hang", f"{answer.outcome} after {answer.seconds:.1f} s")
            return answer
        if not ready:
            self.close()
            return Answer("hang", f"nothing within {PATIENCE_S:g} s", seconds)
        code = process.wait()
        self.close()
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return Answer("crash", how, seconds)

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._asked >= _CASES_A_PROCESS:
            self.close()
        if self._process is None:
            self._asked = 0
            self._process = subprocess.Popen(
                [sys.executable, str(FOLDER / "judging.py"), str(self._bundle)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the campaign, which ends it
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
            )
        return self._process


@dataclass
class Counts:
    """What came of the cases of one sort."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    worst_s: float = 0.0
    peak_mb: float = 0.0

    def add(self, answer: Answer) -> None:
        self.outcomes[answer.outcome] += 1
        self.seconds += answer.seconds
        self.worst_s = max(self.worst_s, answer.seconds)
        self.peak_mb = max(self.peak_mb, answer.peak_mb)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.outcomes + other.outcomes,
            self.seconds + other.seconds,
            max(self.worst_s, other.worst_s),
            max(self.peak_mb, other.peak_mb),
        )


class Campaign:
    """Cases of all kinds, made from what one folder holds.

    Args:
        seed: Chooses the damage.
        work: An empty folder for seeds and cases.
        keep: Where failing cases are copied to.
        sandbox: Whether media are decoded in a sandbox.
    """

    def __init__(self, seed: int, work: Path, keep: Path, *, sandbox: bool = False) -> None:
        self.seed = seed
        self.sandbox = sandbox
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.failures: dict[str, list[str]] = {}
        self.failed: Counter[str] = Counter()
        self._work = work
        self._keep = keep
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._seeds = [(path.suffix, path.read_bytes()) for path in make_seeds(work / "media")]
        self._signed: list[SignedSeed] = []
        self.bundle = build_bundle(work / "bundle")
        self.face = work / "media" / "plain.jpg"

    def run(self, kind: str, cases: range, jobs: int) -> None:
        """Judges the cases of a kind in so many processes at once."""
        self._prepare(kind)
        shares = [cases[job::jobs] for job in range(jobs)]
        with ThreadPoolExecutor(jobs) as pool:
            running = [pool.submit(self._judge, kind, n, share) for n, share in enumerate(shares)]
            try:
                for done in running:
                    done.result()
            except KeyboardInterrupt:
                self._stopped.set()
                raise

    def _judge(self, kind: str, job: int, cases: range) -> None:
        folder = self._work / f"{kind}-{job}"
        folder.mkdir()
        (folder / "face.jpg").write_bytes(self.face.read_bytes())
        judge = Judge(self.bundle)
        try:
            for case in cases:
                if self._stopped.is_set():
                    break
                sort, path = self.make(kind, case, folder)
                answer = self.ask(judge, kind, case, path)
                with self._lock:
                    self.counts[sort].add(answer)
                    if answer.outcome not in GOOD:
                        self._note(kind, case, sort, path, answer)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        finally:
            judge.close()

    def ask(self, judge: Judge, kind: str, case: int, path: Path) -> Answer:
        """Has a case judged that was made."""
        how = "sandboxed" if self.sandbox and kind == "media" else kind
        return judge.ask(how, path, f"{self.seed}:{case}")

    def make(self, kind: str, case: int, folder: Path) -> tuple[str, Path]:
        """Writes a case into a folder; returns its sort and its path."""
        self._prepare(kind)
        random_ = random.Random(f"{self.seed}:{kind}:{case}")
        if kind == "provenance":
            seed = random_.choice(self._signed)
            path = folder / f"case{seed.suffix}"
            path.write_bytes(seed.damaged(random_))
            return kind, path
        if kind == "media":
            suffix, data = random_.choice(self._seeds)
            path = folder / f"case{suffix}"
            path.write_bytes(mutate(data, random_.choice(self._seeds)[1], random_))
            return suffix.lstrip("."), path
        path = folder / "case"
        if kind == "bundle":
            from bundle_mutations import forge

            shutil.copytree(self.bundle, path)
            forge(path, random_)
        return kind, path

    def _prepare(self, kind: str) -> None:
        """Signs the files that the cases of a kind start from: others need no library for it."""
        if kind == "provenance" and not self._signed:
            self._signed = make_signed_seeds(self._work / "signed")

    def _note(self, kind: str, case: int, sort: str, path: Path, answer: Answer) -> None:
        """Remembers a failure by its kind, and keeps the first inputs of each."""
        detail = answer.detail.split(": ")[0] if answer.outcome == "traceback" else answer.detail
        detail = re.sub(r"(0x)?[0-9a-f]*[0-9][0-9a-f]*", "#", detail)
        name = f"{answer.outcome}: {detail[:80]} ({sort})"
        self.failed[name] += 1
        known = self.failures.setdefault(name, [])
        if len(known) >= _KEPT:
            return
        known.append(f"--seed {self.seed} --case {kind}:{case}  {answer.detail}")
        self._keep.mkdir(parents=True, exist_ok=True)
        target = self._keep / f"{kind}-{self.seed}-{case}{path.suffix}"
        _keep(path, target)

    def table(self) -> Iterator[str]:
        """Lines of Markdown: what came of the cases."""
        yield "| input | cases | verdict | clear error | else | most processor time | peak memory |"
        yield "|---|---|---|---|---|---|---|"
        rows = dict(sorted(self.counts.items()))
        media = [counts for sort, counts in rows.items() if sort not in KINDS]
        if media:
            rows["**media, all**"] = sum(media, Counts())
        for sort, counts in rows.items():
            outcomes = counts.outcomes
            total = sum(outcomes.values())
            good = [outcomes[name] for name in GOOD]
            yield (
                f"| {sort} | {total:,} | {good[0]:,} | {good[1]:,} | {total - sum(good):,} "
                f"| {counts.worst_s * 1e3:,.0f} ms | {counts.peak_mb:,.0f} MB |"
            )
        for name, count in self.failed.most_common():
            yield ""
            yield f"{count} x {name}"
            yield from (f"    {line}" for line in self.failures[name])


def _keep(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy(path, target)


def build_bundle(folder: Path) -> Path:
    """A bundle of tiny graphs with the face detector that ships: all but the weights is real."""
    from dfd_edge.bundle.manifest import FaceSpec
    from dfd_edge.faces import DETECTOR_NAME, DetectorOptions
    from dfd_edge.faces.detector import DETECTOR_FILE
    from dfd_edge.faces.onnx_model import face_model_sha256
    from small_bundle import build_small_bundle

    options = DetectorOptions().to_dict()
    face = FaceSpec(DETECTOR_NAME, face_model_sha256(DETECTOR_FILE), options)
    return build_small_bundle(folder, face=face)


def _show_case(campaign: Campaign, text: str, work: Path, keep: Path) -> None:
    kind, _, number = text.partition(":")
    _, path = campaign.make(kind, int(number), work)
    judge = Judge(work / "bundle")
    print(campaign.ask(judge, kind, int(number), path))
    judge.close()
    if path.exists():
        keep.mkdir(parents=True, exist_ok=True)
        target = keep / f"{kind}-{campaign.seed}-{number}{path.suffix}"
        _keep(path, target)
        print(f"the input is {target}")


def main() -> int:
    """Runs what was asked for; returns 1 where anything came that is not promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--cases",
        type=int,
        default=5000,
        help="damaged media; with them come 2/5 bundles, 1/10 calls, 1/5 manifests",
    )
    parser.add_argument("--media", type=int, help="damaged media files")
    parser.add_argument("--bundles", type=int, help="forged bundles")
    parser.add_argument("--arguments", type=int, help="calls with odd arguments")
    parser.add_argument("--provenance", type=int, help="signed files with damaged manifests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="failing inputs")
    parser.add_argument("--sandbox", action="store_true", help="decode media in a sandbox")
    parser.add_argument("--case", help="run one case again, KIND:NUMBER, and keep its input")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dfd-fuzz-") as folder:
        campaign = Campaign(options.seed, Path(folder), options.keep, sandbox=options.sandbox)
        if options.case:
            _show_case(campaign, options.case, Path(folder), options.keep)
            return 0
        wanted = (options.media, options.bundles, options.arguments, options.provenance)
        if wanted == (None,) * len(KINDS):
            cases = options.cases
            wanted = (cases, cases * 2 // 5, cases // 10, cases // 5)
        start_s = time.perf_counter()
        try:
            for kind, count in zip(KINDS, wanted, strict=True):
                campaign.run(kind, range(options.first, options.first + (count or 0)), options.jobs)
        except KeyboardInterrupt:
            print("ended early; so far:")
        took_s = time.perf_counter() - start_s
    print("\n".join(campaign.table()))
    total = sum(sum(counts.outcomes.values()) for counts in campaign.counts.values())
    print(
        f"\n{total:,} cases in {took_s:.0f} s ({total / took_s:.0f} a second), {options.jobs} jobs"
    )
    return 1 if campaign.failed else 0


if __name__ == "__main__":
    sys.exit(main())
