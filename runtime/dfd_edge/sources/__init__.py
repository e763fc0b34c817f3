"""Where frames come from: video files, pictures, cameras, network streams."""

from dfd_edge.sources.expand import SourceItem, SourceKind, expand
from dfd_edge.sources.frames import Frame, Image
from dfd_edge.sources.image import read_image
from dfd_edge.sources.options import CameraOptions, RawFormat, SourceOptions
from dfd_edge.sources.video import VideoFile

__all__ = [
    "CameraOptions",
    "Frame",
    "Image",
    "RawFormat",
    "SourceItem",
    "SourceKind",
    "SourceOptions",
    "VideoFile",
    "expand",
    "read_image",
]
