"""Watches a camera or an address until it ends: `watch_camera.py rtsp://camera/stream`."""

import sys

from dfd_edge import Detector
from dfd_edge.sources import SourceOptions

detector = Detector.load()
options = SourceOptions(rtsp_transport="udp", reconnect_s=60)
with detector.watch(sys.argv[1], options=options, on_event=print) as watch:
    for result in watch:  # `watch.close()` from another thread ends it at once
        print(result.time_s, result.label, result.p_fake, result.staleness_ms)
print(watch.verdict())
