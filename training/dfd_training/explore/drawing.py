"""Drawing of detections, contact sheets, and encoding of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from dfd_edge.sources import Image
from dfd_training.explore.detectors import Box, Pass, PassResult

Colour = tuple[int, int, int]

#: BGR. Green, blue and red as in most tutorials on the cascades; the labels differ too.
_COLOURS: dict[Pass, Colour] = {
    Pass.FRONTAL: (60, 190, 40),
    Pass.PROFILE: (230, 110, 20),
    Pass.EYES: (40, 40, 230),
    Pass.SMILE: (40, 40, 230),
    Pass.BLAZEFACE: (60, 190, 40),
    Pass.DLIB: (60, 190, 40),
}
_WORDS = {
    Pass.FRONTAL: "frontal",
    Pass.PROFILE: "profile",
    Pass.SMILE: "smile",
    Pass.BLAZEFACE: "BlazeFace",
    Pass.DLIB: "dlib",
}
_DARK: Colour = (24, 24, 24)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_JPEG_QUALITY = 82


def shrunk(image: Image, longest: int) -> Image:
    """Returns the picture scaled down to a longer side of at most `longest` pixels."""
    scale = longest / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def draw_boxes(image: Image, found: dict[Pass, PassResult], passes: Iterable[Pass]) -> Image:
    """Draws the detections of some passes into a copy of a frame.

    Faces and smiles are rectangles with a label, eyes are circles.

    Args:
        image: uint8 [height, width, 3], BGR.
        found: By pass.
        passes: The passes to draw; one that did not run is left out.
    """
    canvas = image.copy()
    for item in passes:
        if item not in found:
            continue
        for box in found[item].boxes:
            if item is Pass.EYES:
                _circle(canvas, box, _COLOURS[item])
            else:
                _rectangle(canvas, box, _COLOURS[item], _WORDS[item])
    return canvas


def _pixels(canvas: Image, box: Box) -> tuple[int, int, int, int]:
    height, width = canvas.shape[:2]
    return (
        round(box[0] * width),
        round(box[1] * height),
        round(box[2] * width),
        round(box[3] * height),
    )


def _rectangle(canvas: Image, box: Box, colour: Colour, word: str) -> None:
    x0, y0, x1, y1 = _pixels(canvas, box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _DARK, 4, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
    (wide, tall), _ = cv2.getTextSize(word, _FONT, 0.4, 1)
    x = max(0, min(x0, canvas.shape[1] - wide - 4))
    y = y0 if y0 >= tall + 6 else min(canvas.shape[0], y1 + tall + 6)
    cv2.rectangle(canvas, (x, y - tall - 6), (x + wide + 4, y), _DARK, -1)
    cv2.putText(canvas, word, (x + 2, y - 4), _FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _circle(canvas: Image, box: Box, colour: Colour) -> None:
    x0, y0, x1, y1 = _pixels(canvas, box)
    centre = ((x0 + x1) // 2, (y0 + y1) // 2)
    radius = max(2, (x1 - x0 + y1 - y0) // 4)
    cv2.circle(canvas, centre, radius, _DARK, 4, cv2.LINE_AA)
    cv2.circle(canvas, centre, radius, colour, 2, cv2.LINE_AA)


def contact_sheet(
    images: Sequence[Image], words: Sequence[str], *, columns: int, cell: tuple[int, int]
) -> Image:
    """Arranges pictures on a white sheet, each with a caption below.

    Args:
        images: uint8 [height, width, 3], BGR, of any sizes.
        words: One caption for each, cut off where it does not fit. Only ASCII is drawn.
        columns: Pictures in a row.
        cell: Width and height that each picture is fitted into, in pixels; a row is as tall as
            its tallest picture.

    Returns:
        uint8 [height, width, 3], BGR.
    """
    gap, line = 8, 20
    fitted = [_fitted(image, cell) for image in images]
    columns = max(1, min(columns, len(images)))
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    tops = np.cumsum([gap, *(max(i.shape[0] for i in row) + line + gap for row in rows)])
    sheet = np.full((int(tops[-1]), columns * (cell[0] + gap) + gap, 3), 255, np.uint8)
    for number, (image, text) in enumerate(zip(fitted, words, strict=True)):
        row, column = divmod(number, columns)
        x, bottom = gap + column * (cell[0] + gap), int(tops[row + 1]) - line - gap
        left = x + (cell[0] - image.shape[1]) // 2
        sheet[bottom - image.shape[0] : bottom, left : left + image.shape[1]] = image
        label = np.full((line, cell[0], 3), 255, np.uint8)
        cv2.putText(label, text, (2, 15), _FONT, 0.42, _DARK, 1, cv2.LINE_AA)
        sheet[bottom : bottom + line, x : x + cell[0]] = label
    return sheet


def _fitted(image: Image, cell: tuple[int, int]) -> Image:
    scale = min(cell[0] / image.shape[1], cell[1] / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def jpeg(image: Image) -> bytes:
    """Encodes a picture, uint8 [height, width, 3], BGR, as JPEG."""
    return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1])


def png(image: Image) -> bytes:
    """Encodes a picture, uint8 [height, width, 3], BGR, as PNG."""
    return bytes(cv2.imencode(".png", image)[1])


def from_bytes(encoded: bytes) -> Image:
    """Decodes JPEG or PNG to a picture, uint8 [height, width, 3], BGR."""
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, np.uint8)
