"""The page of `dfd-export web`, written for tests and served on a loopback address."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_export.web.onnxruntime_web import VERSION, WASM_FILES, vendored
from dfd_export.web.site import write_site
from headless import Browser

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / ".cache" / "npm" / f"onnxruntime-web-{VERSION}.tgz"
SAMPLES = ROOT / "samples"
#: In a page of the site: judges PNG frames `../frames/FOLDER/N.png` with the page's own modules.
JUDGE = """(async () => {
  const { folder, times, still } = %s;
  const { Models } = await import("./judge/engine.js");
  const { Stream } = await import("./judge/stream.js");
  const { pixelsOf } = await import("./judge/frames.js");
  const config = await (await fetch("config.json")).json();
  globalThis.models ??= await Models.load(config, new URL("./", location.href), { gpu: false });
  const stream = new Stream(models, config, { still });
  const results = [];
  for (let i = 0; i < times.length; i++) {
    const file = await (await fetch(`../frames/${folder}/${i}.png`)).blob();
    const image = pixelsOf(await createImageBitmap(file, { colorSpaceConversion: "none" }));
    const result = await stream.push(image, times[i]);
    if (result) results.push(result);
  }
  return { results, verdict: stream.verdict() };
})()"""


def package() -> Path:
    """The archive of onnxruntime-web; tests are skipped without it."""
    if not PACKAGE.is_file():
        pytest.skip("onnxruntime-web is not here: make onnxruntime-web")
    return PACKAGE


def unpacked() -> Path:
    """The files of it that a page without a GPU needs, unpacked once."""
    archive = package()
    folder = archive.with_suffix("")
    if not folder.is_dir():
        partial = Path(tempfile.mkdtemp(dir=archive.parent))
        for name, data in vendored(archive, WASM_FILES).items():
            (partial / name).write_bytes(data)
        try:
            partial.rename(folder)
        except OSError:  # another process of the tests was quicker
            shutil.rmtree(partial)
    return folder


def written(folder: Path, precision: str = "fp32") -> Path:
    """The shipped bundle's page in a folder `site`; `folder` itself is what is served."""
    site = folder / "site"
    bundle = Bundle.load(DEFAULT_BUNDLE)
    write_site(bundle, site, precision=precision, onnxruntime=unpacked(), webgpu=False)
    return site


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A plain static server on a folder; its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sample(name: str, count: int) -> list[NDArray[np.uint8]]:
    """The first frames of a sample clip, BGR; 25 a second."""
    with av.open(str(SAMPLES / f"{name}.mp4")) as container:
        frames = container.decode(video=0)
        return [next(frames).to_ndarray(format="bgr24") for _ in range(count)]


def judged_in_browser(
    browser: Browser,
    root: Path,
    images: list[NDArray[np.uint8]],
    times: list[float],
    *,
    still: bool = False,
) -> dict:
    """Results and verdict of the page's modules on frames, which go there as PNG."""
    folder = root / "frames" / str(time.monotonic_ns())
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
    asked = {"folder": folder.name, "times": times, "still": still}
    return browser.evaluate(JUDGE % json.dumps(asked))


def wait_for(browser: Browser, condition: str, seconds: float = 120.0) -> None:
    """Waits until an expression is true in the page."""
    until = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < until, (condition, browser.evaluate("document.body.innerText"))
        time.sleep(0.1)
