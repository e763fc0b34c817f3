"""Threads of each library: what `--threads` sets, and where.

| library | threads of | set by |
|---|---|---|
| onnxruntime | an operator of each graph | `inference.open_graph`, `faces.onnx_model` |
| FFmpeg | decoding and deinterlacing a source | `Detector`, for each source it opens |
| FFmpeg | the encoder of `--save-video` | `outputs.VideoFileWriter` |
| OpenCV | its filters and resizing | `set_opencv_threads`, for the whole process |

All but the last belong to one detector or source. OpenCV has one number for the whole process, so
only the command line sets it, whose process is its own: an application that embeds the detector
keeps the number that it gave OpenCV itself.
"""

from __future__ import annotations

MAX_THREADS = 64
"""Threads that the command line lets a library have."""


def set_up_libraries(threads: int) -> None:
    """Sets what holds for the whole process: for processes of this program's own.

    Args:
        threads: Threads that OpenCV uses, 1 or more.

    Raises:
        ProviderError: onnxruntime cannot be imported.
    """
    from dfd_edge.inference.installation import quiet_onnxruntime  # noqa: PLC0415

    set_opencv_threads(threads)
    quiet_onnxruntime()


def set_opencv_threads(threads: int) -> None:
    """Sets the threads that OpenCV uses in this process, for every part of it.

    Args:
        threads: 1 or more. OpenCV itself takes 0 for none beside the caller's.
    """
    import cv2  # noqa: PLC0415 - the command line loads it only when it judges

    cv2.setNumThreads(threads)
