"""Drawing of detections, contact sheets, and encoding of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from dfd_edge.report.pictures import MOST_ENLARGED
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
#: Half of a drawn line's width: as far from the edge of the picture a box is visible.
_EDGE_PX = 2
#: Space between the pictures of a sheet, height of a caption's line and of its letters.
_GAP_PX, _LINE_PX, _LETTER_PX = 8, 15, 11


def enlarged(image: Image, longest: int) -> Image:
    """Returns a small picture scaled up to `longest` pixels, but to twice its size at most."""
    return image if max(image.shape[:2]) >= longest else _fitted(image, (longest, longest))


def draw_boxes(image: Image, found: dict[Pass, PassResult], passes: Iterable[Pass]) -> Image:
    """Draws the detections of some passes into a copy of a frame.

    Faces and smiles are rectangles with a label, eyes are circles. Sides beyond the picture are
    drawn at its edge.

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

    def inside(share: float, length: int) -> int:
        return min(max(round(share * length), _EDGE_PX), length - 1 - _EDGE_PX)

    x0, x1 = inside(box[0], width), inside(box[2], width)
    return x0, inside(box[1], height), x1, inside(box[3], height)


def _rectangle(canvas: Image, box: Box, colour: Colour, word: str) -> None:
    x0, y0, x1, y1 = _pixels(canvas, box)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), _DARK, 4, cv2.LINE_AA)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
    (wide, tall), _ = cv2.getTextSize(word, _FONT, 0.4, 1)
    x = max(0, min(x0, canvas.shape[1] - wide - 4))
    above, below = y0 >= tall + 6, y1 + tall + 6 <= canvas.shape[0]
    # Without room above and below, the label stands inside.
    y = y0 if above else y1 + tall + 6 if below else y0 + tall + 6
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
    """Arranges pictures on a white sheet, each with its whole caption below.

    Args:
        images: uint8 [height, width, 3], BGR, of any sizes.
        words: One caption for each; one longer than the cell is wide runs over several lines.
        columns: Pictures in a row.
        cell: Width and height that each picture is fitted into, in pixels; small ones are enlarged
            to twice their size at most. A row is as tall as its tallest picture and caption.

    Returns:
        uint8 [height, width, 3], BGR.
    """
    fitted = [_fitted(image, cell) for image in images]
    captions = [wrapped(text, cell[0]) for text in words]
    columns = max(1, min(columns, len(images)))
    starts = range(0, len(fitted), columns)
    talls = [max(image.shape[0] for image in fitted[start:][:columns]) for start in starts]
    lines = [max(map(len, captions[start:][:columns])) for start in starts]
    heights = [
        tall + _LINE_PX * number + _GAP_PX for tall, number in zip(talls, lines, strict=True)
    ]
    tops = np.cumsum([_GAP_PX, *heights])
    across = cell[0] + _GAP_PX
    sheet = np.full((int(tops[-1]), columns * across + _GAP_PX, 3), 255, np.uint8)
    writing: list[tuple[int, int, list[str]]] = []
    for number, (image, caption) in enumerate(zip(fitted, captions, strict=True)):
        row, column = divmod(number, columns)
        x, bottom = _GAP_PX + column * across, int(tops[row]) + talls[row]
        left = x + (cell[0] - image.shape[1]) // 2
        sheet[bottom - image.shape[0] : bottom, left : left + image.shape[1]] = image
        writing.append((x, bottom, caption))
    canvas = PilImage.fromarray(sheet)
    pen = ImageDraw.Draw(canvas)
    for x, y, caption in writing:
        for number, text in enumerate(caption):
            pen.text((x, y + _LINE_PX * number + 2), text, fill=_DARK, font=_font())
    return np.array(canvas, np.uint8)


def wrapped(text: str, width: int) -> list[str]:
    """Breaks a caption into lines that are at most so many pixels wide.

    Lines end at a space where one fits, or else behind a letter.
    """
    lines: list[str] = []
    # A line break in a file's name is no break of the caption.
    rest = " ".join(text.split())
    while rest:
        fits = len(rest)
        while fits > 1 and _font().getlength(rest[:fits]) > width:
            fits -= 1
        space = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else -1
        end = space if space > 0 else fits
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return lines or [""]


@cache
def _font() -> ImageFont.FreeTypeFont:
    """Returns the font of captions: DejaVu Sans, which matplotlib brings, for most alphabets."""
    folder = Path(mpl.get_data_path())
    return ImageFont.truetype(str(folder / "fonts" / "ttf" / "DejaVuSans.ttf"), _LETTER_PX)


def _fitted(image: Image, cell: tuple[int, int]) -> Image:
    scale = min(cell[0] / image.shape[1], cell[1] / image.shape[0], MOST_ENLARGED)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_CUBIC
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
