"""What a file that is no text really is, by its first bytes. Knows no format of rows, and unpacks nothing."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

HEAD = 1 << 16  # bytes that are looked at


@dataclass(frozen=True)
class FileKind:
    """``what`` ends the sentence "it is ...", ``remedy`` says what to do; neither holds anything of the file."""

    what: str
    remedy: str


def _packed(what: str, command: str) -> FileKind:
    return FileKind(what, f"unpack it ({command}) and name what comes out in data.source")


_PANDAS = "write its rows as Parquet or CSV"
_SHEET = "save it as CSV (UTF-8) and name that in data.source"
_TEXT = "save it as plain text (UTF-8)"
_PICKLE = FileKind(
    "a Python pickle", "write its rows as Parquet (df.to_parquet) where it was made: a pickle runs code when it is read"
)
_XLSX = FileKind("a spreadsheet (xlsx)", _SHEET)
_ODS = FileKind("a spreadsheet (OpenDocument)", _SHEET)
_WORD = FileKind("a document (docx or the like)", _TEXT)
_ROWS = "write its rows out"
_PARQUET = "write its rows as Parquet"
_ARROW = f"{_PARQUET}: pyarrow.parquet.write_table(pyarrow.feather.read_table(FILE), NEW)"
_IMAGE = "a model of text reads text alone; take it out, or list it in data.ignore"

PARQUET = FileKind("Parquet", "set data.format: parquet")
_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"PAR1", PARQUET),
    (0, b"PARE", FileKind("encrypted Parquet", "write it without encryption")),
    (0, b"\x1f\x8b", _packed("packed with gzip", "gunzip FILE.gz; a .tar.gz by tar -xzf")),
    (0, b"\x1f\x9d", _packed("packed with compress", "uncompress FILE.Z")),
    (4, b"1AY&SY", _packed("packed with bzip2", "bunzip2 FILE.bz2")),
    (0, b"\xfd7zXZ\x00", _packed("packed with xz", "unxz FILE.xz")),
    (0, b"\x28\xb5\x2f\xfd", _packed("packed with zstd", "unzstd FILE.zst")),
    (0, b"\x04\x22\x4d\x18", _packed("packed with lz4", "lz4 -d FILE.lz4")),
    (0, b"\xff\x06\x00\x00sNaPpY", _packed("packed with snappy", "snzip -d FILE.sz")),
    (0, b"7z\xbc\xaf\x27\x1c", _packed("a 7z archive", "7z x FILE.7z")),
    (0, b"Rar!\x1a\x07", _packed("a rar archive", "unrar x FILE.rar")),
    (257, b"ustar", _packed("a tar archive", "tar -xf FILE.tar")),
    (0, b"!<arch>\n", _packed("an ar archive", "ar x FILE")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", FileKind("an Office file (xls, doc, or one with a password)", _SHEET)),
    (0, b"%PDF-", FileKind("a PDF document", _TEXT)),
    (0, b"{\\rtf", FileKind("a rich text document (RTF)", _TEXT)),
    (0, b"%!PS", FileKind("a PostScript document", _TEXT)),
    (0, b"SQLite format 3\x00", FileKind("an SQLite database", f"{_ROWS}: sqlite3 -csv -header FILE")),
    (8, b"DUCK", FileKind("a DuckDB database", f"{_ROWS}: COPY (SELECT ...) TO 'rows.parquet'")),
    (4, b"Standard Jet DB", FileKind("an Access database", _SHEET)),
    (4, b"Standard ACE DB", FileKind("an Access database", _SHEET)),
    (0, b"ARROW1", FileKind("an Arrow file (Feather)", _ARROW)),
    (0, b"FEA1", FileKind("a Feather file of version 1", _ARROW)),
    (0, b"\xff\xff\xff\xff", FileKind("an Arrow stream", f"{_PARQUET}: datasets.Dataset.from_file(FILE)")),
    (0, b"ORC", FileKind("an ORC file", f"{_PARQUET}: pyarrow.orc.read_table(FILE)")),
    (0, b"Obj\x01", FileKind("an Avro file", _PANDAS)),
    (0, b"SEQ\x06", FileKind("a Hadoop sequence file", _PANDAS)),
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file", _PANDAS)),
    (0, b"\x93NUMPY", FileKind("a NumPy array", _PANDAS)),
    (0, b"<stata_dta>", FileKind("a Stata file", "write its rows as CSV: pandas.read_stata(FILE).to_csv(NEW)")),
    (0, b"$FL2", FileKind("an SPSS file", "write its rows as CSV: pandas.read_spss(FILE).to_csv(NEW)")),
    (0, b"RDX", FileKind("an R data file", "write its rows as CSV: write.csv in R")),
    (0, b"MATLAB 5.0 MAT-file", FileKind("a MATLAB file", _PANDAS)),
    (0, b"GGUF", FileKind("a GGUF model", "name the data, not a model, in data.source")),
    (0, b"\x80\x02", _PICKLE), (0, b"\x80\x03", _PICKLE), (0, b"\x80\x04", _PICKLE), (0, b"\x80\x05", _PICKLE),
    (0, b"bplist00", FileKind("a property list of macOS", _PANDAS)),
    (0, b"\x89PNG\r\n\x1a\n", FileKind("a PNG image", _IMAGE)),
    (0, b"\xff\xd8\xff", FileKind("a JPEG image", _IMAGE)),
    (0, b"GIF8", FileKind("a GIF image", _IMAGE)),
    (0, b"RIFF", FileKind("an image, a sound or a film (RIFF)", _IMAGE)),
    (4, b"ftyp", FileKind("a film or a sound (MP4)", _IMAGE)),
    (0, b"ID3", FileKind("a sound (MP3)", _IMAGE)),
    (0, b"OggS", FileKind("a sound (Ogg)", _IMAGE)),
    (0, b"fLaC", FileKind("a sound (FLAC)", _IMAGE)),
    (0, b"\x7fELF", FileKind("a program", "name the data in data.source")),
)  # fmt: skip
# By names that stand in the head of a zip archive: what makes it, says it.
_ZIPPED = (
    (b"xl/", _XLSX),
    (b"application/vnd.oasis.opendocument.spreadsheet", _ODS),
    (b"word/", _WORD),
    (b"ppt/", _WORD),
    (b"application/vnd.oasis.opendocument", _WORD),
    (b"application/epub+zip", FileKind("a book (epub)", _TEXT)),
    (b"[Content_Types].xml", _XLSX),
    (b"data.pkl", FileKind("a file of PyTorch", _PICKLE.remedy)),
    (b".npy", FileKind("NumPy arrays (npz)", _PANDAS)),
)
_SURE = (b"PAR1", b"%PDF-", b"{\\rtf", b"%!PS", b"<stata_dta>", b"ARROW1", b"1AY&SY")  # text, and the start of no text
_ZIP = _packed("a zip archive", "unzip FILE.zip")
_UNKNOWN = "binary, of no kind that is known here"
# Control characters that texts do hold: tab, line ends, form feed, escape sequences, end of file of old, separators.
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1a\x1b\x1c\x1d\x1e\x1f"))


def binary_kind(head: bytes) -> FileKind | None:
    """What a file is whose first ``HEAD`` bytes are these; None where it may be text in some encoding."""
    has_control = control_share(head) > 0
    for offset, magic, kind in _MAGIC:
        # A word of ASCII, such as "ORC" or "GIF8", may begin a text as well: control characters decide.
        if head.startswith(magic, offset) and (has_control or not magic.isascii() or magic in _SURE):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return next((kind for name, kind in _ZIPPED if name in head), _ZIP)
    return None


def is_binary(head: bytes) -> bool:
    """Whether a file of no known kind is no text of one byte a letter either. Odd characters alone make none binary."""
    if is_utf8(head):
        return control_share(head) > 0.3 and b"\n" not in head
    return control_share(head) > 0.05 and b"\x00" in head and len(head) >= 256


def control_share(head: bytes) -> float:
    """The share of control characters that texts do not hold."""
    return 1 - len(head.translate(None, _CONTROL)) / len(head) if head else 0.0


def is_utf8(head: bytes) -> bool:
    """Whether the bytes are the beginning of a text in UTF-8; its last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def unknown_kind(head: bytes) -> FileKind:
    """A binary file of no known kind, told by its first bytes in hexadecimal digits."""
    return FileKind(f"{_UNKNOWN}: it begins with the bytes {head[:8].hex(' ')}", "name a file of text in data.source")
