"""Decodes with PyAV and pushes frames with the file's own timestamps: `pyav_frames.py clip.mp4`."""

import sys

import av

from dfd_edge import Detector

detector = Detector.load()
with detector.stream("pyav") as stream, av.open(sys.argv[1]) as container:
    for frame in container.decode(video=0):
        if frame.time is not None:
            stream.push(frame.to_ndarray(format="bgr24"), timestamp=frame.time)
    verdict = stream.verdict()
print(verdict.label, f"{verdict.p_fake:.3f}", verdict.frames)
