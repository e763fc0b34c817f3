"""Calls a function whenever the live label changes: `label_changes.py clip.mp4`."""

import sys

from dfd_edge import Detector


def on_change(label, result):
    print(f"{result.time_s:.1f} s: now {label}")


detector = Detector.load()
with detector.watch(sys.argv[1]) as watch:  # or 0, "/dev/video2", "rtsp://..."
    shown = None
    for result in watch:
        if result.label is not shown:
            shown = result.label
            on_change(shown, result)
    print("final verdict:", watch.verdict().label)
