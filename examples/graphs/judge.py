"""Runs a bundle's graphs in plain onnxruntime: `judge.py BUNDLE crop*.png`.

A sequence model may also take signals, measured on consecutive frames. Crops alone have none: the
steps count as not measured.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime as ort

folder, pictures = sys.argv[1], sys.argv[2:]
manifest = json.load(open(f"{folder}/manifest.json", encoding="utf-8"))
frame = ort.InferenceSession(f"{folder}/{manifest['frame']['variants']['fp32']['file']}")
sequence = ort.InferenceSession(f"{folder}/{manifest['sequence']['file']}")
size, one = manifest["frame"]["input_size"], np.array([1], np.int32)


def p_fake(logit, level):
    calibrator = manifest["decision"]["calibrators"][level]
    return 1 / (1 + np.exp(-(calibrator["slope"] * logit + calibrator["intercept"])))


state = np.zeros((1, manifest["sequence"]["state_width"]), np.float32)
signals = manifest["sequence"].get("signals")
unmeasured = {}
if signals:
    unmeasured["signals"] = np.zeros((1, 1, len(signals["names"])), np.float32)
    unmeasured["measured"] = np.zeros((1, 1), np.float32)
for picture in pictures:
    bgr = cv2.resize(cv2.imread(picture), (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)[None]
    features, [logit] = frame.run(["features", "fake_logit"], {"image": image})
    inputs = {"features": features[None], "lengths": one, "state": state, **unmeasured}
    [[step]], state = sequence.run(["fake_logit", "next_state"], inputs)
    print(picture, f"frame {logit:.4f} P(fake) {p_fake(logit, 'frame'):.4f}", end="  ")
    print(f"step {step:.4f} P(fake) {p_fake(step, 'step'):.4f}")
