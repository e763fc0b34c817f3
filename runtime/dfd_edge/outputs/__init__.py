"""Where results go: JSON Lines, CSV, annotated video, a webhook, the terminal."""

from dfd_edge.outputs.csv_file import CsvFile
from dfd_edge.outputs.files import written_whole
from dfd_edge.outputs.overlay import Overlay
from dfd_edge.outputs.video_file import VideoFileWriter

__all__ = ["CsvFile", "Overlay", "VideoFileWriter", "written_whole"]
