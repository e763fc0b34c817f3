"""Cuts face crops as the runtime does: `crops.py BUNDLE CLIP` writes crop0000.png and so on."""

import sys

import cv2

from dfd_edge.bundle import Bundle
from dfd_edge.faces import FaceDetector, crop_region, extract_crop
from dfd_edge.sources import VideoFile
from dfd_edge.sources.frames import Sampler

manifest = Bundle.load(sys.argv[1]).manifest
size, scale = manifest.frame.input_size, manifest.frame.crop_scale
detector = FaceDetector()
with VideoFile(sys.argv[2]) as video:
    for frame in video.frames(Sampler(manifest.sequence.rate_hz)):
        for face in detector.detect(frame.image)[:1]:
            crop = extract_crop(frame.image, crop_region(face.box, scale), size)
            cv2.imwrite(f"crop{frame.index:04}.png", crop[:, :, ::-1])
