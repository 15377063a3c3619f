"""Decompression in pieces of bounded size, where a stream that was cut short is an error.

Python's own file objects are not used: `zstandard`'s reader ends silently where its input was cut, `bz2` and `lzma`
ignore what follows a stream, `zipfile` what a member holds beyond its declared size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from dm.plumbing.formats.archive.faults import BrokenArchive, UnsupportedArchive

#: The most bytes that a decoder yields at a time (zstd: see `ZstdDecoder`).
PIECE_BYTES = 256 << 10
#: The largest dictionary of an xz or lzma stream: `xz -9` needs 65 MiB, a hostile header can ask for 4 GiB.
LZMA_MEMORY_BYTES = 512 << 20


class Decoder(Protocol):
    """Turns compressed bytes of one stream into plain ones."""

    #: Whether the stream's end has been seen and its check sum (where it has one) was right.
    ended: bool
    #: What was fed beyond the stream's end.
    rest: bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to, in pieces. Raises `BrokenArchive` for bytes that are no such stream."""


class ZlibDecoder:
    """gzip (``wbits`` 31) and the raw deflate of zip (``wbits`` -15)."""

    def __init__(self, wbits: int) -> None:
        import zlib

        self._decoder = zlib.decompressobj(wbits)
        self._error = zlib.error
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to."""
        while True:
            try:
                piece = self._decoder.decompress(data, PIECE_BYTES)
            except self._error as error:
                raise BrokenArchive(f"its compressed data are corrupt ({error})") from error
            data = self._decoder.unconsumed_tail
            if piece:
                yield piece
            if self._decoder.eof:
                self.ended = True
                self.rest = self._decoder.unused_data
                return
            if not data and len(piece) < PIECE_BYTES:
                return


class _Pulled(Protocol):
    """What `bz2.BZ2Decompressor` and `lzma.LZMADecompressor` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class PulledDecoder:
    """bzip2, xz and lzma."""

    def __init__(self, decoder: _Pulled, errors: tuple[type[Exception], ...]) -> None:
        self._decoder = decoder
        self._errors = errors
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to."""
        while True:
            try:
                piece = self._decoder.decompress(data, PIECE_BYTES)
            except self._errors as error:
                if "emory" in str(error):
                    raise UnsupportedArchive(
                        f"its compression needs more than {LZMA_MEMORY_BYTES >> 20} MiB of memory"
                    ) from error
                raise BrokenArchive(f"its compressed data are corrupt ({error})") from error
            data = b""
            if piece:
                yield piece
            if self._decoder.eof:
                self.ended = True
                self.rest = self._decoder.unused_data
                return
            if self._decoder.needs_input:
                return


class ZstdDecoder:
    """Zstandard (RFC 8878), one frame.

    `zstandard` gives all that its input unpacks to at once. A block of 4 bytes can unpack to 128 KiB, so that input in
    steps of 2 KiB keeps the worst piece at 64 MiB.
    """

    _STEP_BYTES = 2048

    def __init__(self) -> None:
        import zstandard

        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._error = zstandard.ZstdError
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` unpacks to."""
        for start in range(0, len(data), self._STEP_BYTES):
            step = data[start : start + self._STEP_BYTES]
            try:
                piece = self._decoder.decompress(step)
            except self._error as error:
                if "memory" in str(error):
                    raise UnsupportedArchive("its compression needs more than 128 MiB of memory") from error
                raise BrokenArchive(f"its compressed data are corrupt ({error})") from error
            if piece:
                yield piece
            if self._decoder.eof:
                self.ended = True
                self.rest = self._decoder.unused_data + data[start + self._STEP_BYTES :]
                return


def make_gzip_decoder() -> Decoder:
    """A decoder of one gzip member (RFC 1952); its CRC and size are checked."""
    return ZlibDecoder(31)


def make_deflate_decoder() -> Decoder:
    """A decoder of raw deflate (RFC 1951), zip's method 8."""
    return ZlibDecoder(-15)


def make_bzip2_decoder() -> Decoder:
    """A decoder of one bzip2 stream."""
    import bz2

    return PulledDecoder(bz2.BZ2Decompressor(), (OSError, ValueError, EOFError))


def make_xz_decoder() -> Decoder:
    """A decoder of one xz stream; its check (CRC or SHA-256) is checked."""
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY_BYTES)
    return PulledDecoder(decoder, (lzma.LZMAError, EOFError))


def make_lzma_decoder(properties: bytes) -> Decoder:
    """A decoder of raw lzma, zip's method 14, from its 5 bytes of properties (lzma-specification, section 1.1)."""
    import lzma

    first, dictionary_bytes = properties[0], int.from_bytes(properties[1:5], "little")
    if dictionary_bytes > LZMA_MEMORY_BYTES:
        raise UnsupportedArchive(f"its compression needs more than {LZMA_MEMORY_BYTES >> 20} MiB of memory")
    coder = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": max(dictionary_bytes, 4096),
        "lc": first % 9,
        "lp": first // 9 % 5,
        "pb": first // 45,
    }
    errors = (lzma.LZMAError, EOFError)
    try:
        return PulledDecoder(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[coder]), errors)
    except (lzma.LZMAError, ValueError) as error:
        raise BrokenArchive("a member's lzma properties are corrupt") from error


def make_zstd_decoder() -> Decoder:
    """A decoder of one Zstandard frame; its check sum, where it has one, is checked."""
    return ZstdDecoder()


def decode_stream(chunks: Iterable[bytes], make_decoder: Callable[[], Decoder]) -> Iterator[bytes]:
    """Unpack a file of one compressed stream or several one after another, as gzip, bzip2, xz and zstd allow.

    Zeros after a stream are padding (gzip on tapes, xz by its specification). Raises `BrokenArchive` when the file ends
    inside a stream and when something else follows one.
    """
    decoder: Decoder | None = None
    between = False
    for chunk in chunks:
        data = chunk
        while data:
            if decoder is None:
                data = data.lstrip(b"\0") if between else data
                if not data:
                    break
                decoder = make_decoder()
            try:
                yield from decoder.feed(data)
            except BrokenArchive as error:
                raise (_make_following_error() if between else error) from None
            data = b""
            if decoder.ended:
                data, decoder, between = decoder.rest, None, True
    if decoder is not None and between:
        raise _make_following_error()
    if not between:
        raise BrokenArchive("it ends in the middle: its compressed data are cut short")


def _make_following_error() -> BrokenArchive:
    return BrokenArchive("what follows its first compressed stream is cut short, corrupt or something else")
