"""Serves a Matroska file with H.264 at rtsp://127.0.0.1:PORT/cam; for a Python that has GStreamer.

Run as `python rtsp_server.py PORT FILE`; it prints `ready` and serves until it is killed.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = "( filesrc location={} ! matroskademux ! h264parse ! rtph264pay name=pay0 pt=96 )"


def main(port: str, path: str) -> None:
    """Serves until killed."""
    Gst.init(None)
    if (
        Gst.ElementFactory.find("rtph264pay") is None
        or Gst.ElementFactory.find("h264parse") is None
    ):
        sys.exit("GStreamer's good and bad plugins are missing")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(path))
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
