"""Judges a video or an image: `python examples/judge_file.py clip.mp4`."""

import sys

from dfd_edge import Detector

detector = Detector.load()
verdict = detector.analyze(sys.argv[1])
print(verdict.label, verdict.p_fake, verdict.coverage)
for person in verdict.people:
    print(person.track, person.label, [(i.start_s, i.end_s) for i in person.intervals])
