"""Judges one picture as an open file, as bytes and as pixels: `judge_bytes.py photo.jpg`."""

import io
import sys

import cv2

from dfd_edge import Detector

detector = Detector.load()
with open(sys.argv[1], "rb") as file:
    data = file.read()
    print(detector.analyze(file, name="upload").p_fake)
print(detector.analyze(data).p_fake, detector.analyze(io.BytesIO(data)).p_fake)
bgr = cv2.imread(sys.argv[1])
print(detector.analyze(bgr).p_fake, detector.analyze(bgr[:, :, ::-1], colour="rgb").p_fake)
