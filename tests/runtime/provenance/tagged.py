"""Small files that carry one statement of plain metadata, as generators, cameras and others do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image, PngImagePlugin

EXIF_IFD = 0x8769
EXIF_TAGS = {
    "ImageDescription": 0x010E,
    "Make": 0x010F,
    "Model": 0x0110,
    "Software": 0x0131,
    "Artist": 0x013B,
}
USER_COMMENT = 0x9286
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PHOTOSHOP, _DC = "http://ns.adobe.com/photoshop/1.0/", "http://purl.org/dc/elements/1.1/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
NAMESPACES = {
    **dict.fromkeys(("DigitalSourceType", "AISystemUsed", "AISystemVersionUsed"), _IPTC),
    **dict.fromkeys(("AIPromptInformation", "AIPromptWriterName"), _IPTC),
    **dict.fromkeys(("title", "description", "creator"), _DC),
    **dict.fromkeys(("Credit", "Source"), _PHOTOSHOP),
    **dict.fromkeys(("Make", "Model", "Software", "Artist", "ImageDescription"), _TIFF),
    "CreatorTool": "http://ns.adobe.com/xap/1.0/",
    "UserComment": "http://ns.adobe.com/exif/1.0/",
    "softwareAgent": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "AIGC": "http://www.tc260.org.cn/ns/AIGC/1.0/",
}
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def picture() -> Image.Image:
    return Image.new("RGB", (64, 64), (90, 120, 60))


def exif(values: dict[str, str]) -> Image.Exif:
    """Exif tags by name; a comment as Stable Diffusion web UI encodes it."""
    tags = Image.Exif()
    for name, value in values.items():
        if name == "UserComment":
            comment = b"UNICODE\0" + value.encode("utf-16-be")
            tags[EXIF_IFD] = {USER_COMMENT: comment}
        else:
            tags[EXIF_TAGS[name]] = value
    read = Image.Exif()  # as Pillow needs it to write TIFF
    read.load(tags.tobytes())
    return read


def xmp(name: str, value: str) -> bytes:
    """A packet in which a property is an attribute."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return packet(f'<rdf:Description xmlns:n="{NAMESPACES[name]}" n:{name}="{escaped}"/>')


def packet(description: str) -> bytes:
    """A packet around its descriptions."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'{description}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def png(path: Path, texts: dict[str, str], *, compressed: bool = False) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value, zip=compressed)
    picture().save(path, pnginfo=info)
    return path


def jpeg(path: Path, **saving: object) -> Path:
    picture().save(path, **saving)
    return path


def with_segment(path: Path, marker: int, data: bytes) -> Path:
    """Puts a segment behind the first of a JPEG file."""
    begin = path.read_bytes()
    at = 4 + struct.unpack(">H", begin[4:6])[0]
    segment = struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
    path.write_bytes(begin[:at] + segment + begin[at:])
    return path


def film(
    path: Path,
    tags: dict[str, str] | None = None,
    *,
    stream_tags: dict[str, str] | None = None,
    codec: str = "mpeg4",
    user_data: bytes | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """One frame in a container; `user_data` goes into the stream itself."""
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.metadata.update(stream_tags or {})
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
        for encoded in (*stream.encode(frame), *stream.encode(None)):
            container.mux(encoded if user_data is None else _with_message(encoded, user_data))
    return path


def _with_message(old: av.Packet, user_data: bytes) -> av.Packet:
    """Puts "user data unregistered" before an H.264 frame (ITU-T H.264, D.1.7)."""
    assert len(user_data) < 0xFF
    unit = b"\0\0\0\1\x06\x05" + bytes([len(user_data)]) + user_data + b"\x80"
    new = av.Packet(unit + bytes(old))
    new.stream, new.time_base = old.stream, old.time_base
    new.pts, new.dts, new.is_keyframe = old.pts, old.dts, True
    return new


def tagged(folder: Path, field: str, value: str) -> Path:
    """A file that carries exactly this statement, in the way that belongs to the field."""
    kind, _, name = field.partition(".")
    write = _WRITERS.get(field) or _WRITERS[kind]
    return write(folder, name, value)


def _exif(folder: Path, name: str, value: str) -> Path:
    values = {name: value}
    if value.startswith("Signature: "):
        values["Artist"] = "0c1c6a58-45b7-4c7c-9a0e-3b3c1f5f8a11"
    return jpeg(folder / "tagged.jpg", exif=exif(values))


def _pickled(folder: Path, _name: str, value: str) -> Path:
    return with_segment(jpeg(folder / "tagged.jpg"), 0xEF, b"\x80\x04}(" + value.encode())


def _user_data(folder: Path, _name: str, value: str) -> Path:
    data = bytes.fromhex("91ca60614aee385486142d5f73f4ae2e") + value.encode() + b"\0"
    return film(folder / "tagged.mp4", codec="libx264", user_data=data)


def _container(folder: Path, name: str, value: str) -> Path:
    key = {"aigc": "AIGC", "*": "data", "encoder": "encodeX"}.get(name, name)
    # Otherwise FFmpeg drops keys that are not its own. As the encoder it always names itself.
    options = {"movflags": "use_metadata_tags", "fflags": "bitexact"}
    path = film(folder / "tagged.mp4", {key: value}, options=options)
    path.write_bytes(path.read_bytes().replace(b"encodeX", b"encoder"))
    return path


#: By field, or by the kind of metadata; each takes the folder, the name in the kind, and a value.
_WRITERS: dict[str, Callable[[Path, str, str], Path]] = {
    "png": lambda folder, name, value: png(folder / "tagged.png", {name: value}),
    "exif": _exif,
    "xmp": lambda folder, name, value: jpeg(folder / "tagged.jpg", xmp=xmp(name, value)),
    "jpeg": lambda folder, name, value: jpeg(folder / "tagged.jpg", **{name: value}),
    "gif": lambda folder, name, value: jpeg(folder / "tagged.gif", **{name: value}),
    "jpeg.APP15": _pickled,
    "container": _container,
    "stream": lambda folder, name, value: film(folder / "a.mp4", stream_tags={name: value}),
    "stream.encoder": lambda folder, _, value: film(
        folder / "a.mkv", stream_tags={"ENCODER": value}
    ),
    "stream.vendor_id": lambda folder, *_: film(folder / "a.mov"),  # FFmpeg writes its own there
    "stream.user_data": _user_data,
}
