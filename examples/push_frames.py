"""Reads frames with OpenCV and pushes each one: `push_frames.py clip.mp4`."""

import sys

import cv2

from dfd_edge import Detector

detector = Detector.load()
capture = cv2.VideoCapture(sys.argv[1])
seconds_a_frame = 1 / capture.get(cv2.CAP_PROP_FPS)
with detector.stream("door camera") as stream:
    number = 0
    while True:
        read, frame = capture.read()
        if not read:
            break
        result = stream.push(frame, timestamp=number * seconds_a_frame)
        number += 1
        if result is not None:  # None: this frame was not due
            print(f"{result.time_s:.2f} s  {result.label}  {result.p_fake}")
    print(stream.verdict().label)
