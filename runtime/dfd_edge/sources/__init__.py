"""Where frames come from: video files, pictures, cameras, network streams."""

from dfd_edge.sources.expand import SourceItem, SourceKind, expand
from dfd_edge.sources.frame import Frame, Image
from dfd_edge.sources.image import read_image
from dfd_edge.sources.video import VideoFile

__all__ = ["Frame", "Image", "SourceItem", "SourceKind", "VideoFile", "expand", "read_image"]
