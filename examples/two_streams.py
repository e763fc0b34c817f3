"""Watches several sources with one detector, a thread each: `two_streams.py a.mp4 b.mp4`."""

import sys
import threading

from dfd_edge import Detector

detector = Detector.load()
verdicts = {}


def judge(number, source):
    with detector.watch(source) as watch:
        for _ in watch:
            pass
        verdicts[number] = watch.verdict()


threads = [threading.Thread(target=judge, args=pair) for pair in enumerate(sys.argv[1:])]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for number, verdict in sorted(verdicts.items()):
    print(number, verdict.label, f"{verdict.p_fake:.3f}")
