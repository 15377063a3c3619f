"""tar, plain and compressed: `tarfile` reads the headers, the bytes go by it.

`tarfile` ends silently at a header it cannot read and at a file that stops without its end marker; `_Header` makes
both an error. Its `extractall` is not used. Old, ustar, GNU (long names, sparse files) and pax forms are read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, cast

from dm.plumbing.formats.archive import decoders
from dm.plumbing.formats.archive.faults import BrokenArchive, UnsafeMember
from dm.plumbing.formats.archive.limits import Meter
from dm.plumbing.formats.archive.staging import Staging

_DECODERS = {
    "tar.gz": decoders.make_gzip_decoder,
    "tar.bz2": decoders.make_bzip2_decoder,
    "tar.xz": decoders.make_xz_decoder,
    "tar.zst": decoders.make_zstd_decoder,
}
#: What the headers of one member may take: long names and pax records take a few KiB, `tarfile` keeps them in memory.
_HEADER_BYTES_MAX = 1 << 20
_ZEROS = bytes(256 << 10)
#: GNU's label of a volume: says nothing about files.
_VOLUME_LABEL = b"V"
_KINDS = {tarfile.FIFOTYPE: "a fifo", tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device"}


class _TarStream:
    """The bytes of a tar, forward only: `read` for `tarfile`'s headers, `take` for the members' bytes."""

    def __init__(self, pieces: Iterable[bytes], meter: Meter) -> None:
        self._pieces = iter(pieces)
        self._meter = meter
        self._piece = memoryview(b"")
        self._unpacked = 0
        self._header_bytes = 0
        self.ended = False

    def start_header(self) -> None:
        """A member's headers begin here."""
        self._header_bytes = 0

    def tell(self) -> int:
        """Bytes taken so far."""
        return self._unpacked - len(self._piece)

    def take(self, size: int) -> memoryview:
        """Up to ``size`` bytes, at least one unless the stream is over."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._unpacked += len(piece)
            self._meter.check_bytes(self._unpacked)
            self._piece = memoryview(piece)
        taken, self._piece = self._piece[:size], self._piece[size:]
        return taken

    def take_exactly(self, size: int) -> Iterator[memoryview]:
        """``size`` bytes in pieces. Raises `BrokenArchive` when there are fewer."""
        while size:
            piece = self.take(size)
            if not piece:
                raise BrokenArchive("it ends in the middle of a member")
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes of headers, fewer at the end of the stream."""
        if size < 0:
            raise BrokenArchive("it has a header of impossible size")
        self._header_bytes += size
        if self._header_bytes > _HEADER_BYTES_MAX:
            raise BrokenArchive(f"the headers of one member take more than {_HEADER_BYTES_MAX >> 20} MiB")
        first = self.take(size)
        if len(first) == size:
            return bytes(first)
        parts = [bytes(first)]
        size -= len(first)
        while size and (part := self.take(size)):
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)


# Public by their names since Python 3.0, but unknown to the type stubs.
_EndMarker: type[tarfile.HeaderError] = vars(tarfile)["EOFHeaderError"]
_EndOfFile: type[tarfile.HeaderError] = vars(tarfile)["EmptyHeaderError"]


class _Header(tarfile.TarInfo):
    """A header that is not read by halves."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        """The next header; the stream learns of the end marker. Raises `BrokenArchive` for a header that is none."""
        stream = cast(_TarStream, tarfile_.fileobj)
        try:
            return super().fromtarfile(tarfile_)
        except _EndMarker:
            stream.ended = True
            raise
        except _EndOfFile as error:
            raise BrokenArchive("it ends without the marker of a tar's end: it was cut short") from error
        except tarfile.HeaderError as error:
            reason = "it is cut short or no tar" if stream.tell() < tarfile.BLOCKSIZE else "a header of it is corrupt"
            raise BrokenArchive(f"{reason} ({error})") from error


def unpack_tar(chunks: Iterable[bytes], archive_format: str, staging: Staging, meter: Meter) -> None:
    """Read a tar from its file's chunks into a staging folder, to the last byte of the file.

    Raises `ArchiveFault` kinds and OSError.
    """
    make_decoder: Callable[[], decoders.Decoder] | None = _DECODERS.get(archive_format)
    stream = _TarStream(chunks if make_decoder is None else decoders.decode_stream(chunks, make_decoder), meter)
    for member in _read_headers(stream):
        _unpack_member(member, stream, staging)
    _check_rest(stream)


def _read_headers(stream: _TarStream) -> Iterator[tarfile.TarInfo]:
    """The members in order; the stream must be moved within a member's bytes only."""
    archive: tarfile.TarFile | None = None
    while True:
        stream.start_header()
        try:
            if archive is None:
                archive = tarfile.TarFile(
                    fileobj=cast(IO[bytes], stream), tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
                )
            member = archive.next()
        except (tarfile.TarError, ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
            raise BrokenArchive("a header of it is corrupt") from error
        if member is None:
            return
        vars(archive)["members"].clear()  # tarfile would keep every member
        following = archive.offset
        if member.size < 0 or following < stream.tell():
            raise BrokenArchive("a header of it is corrupt (it points backwards)")
        yield member
        for _ in stream.take_exactly(following - stream.tell()):
            pass


def _unpack_member(member: tarfile.TarInfo, stream: _TarStream, staging: Staging) -> None:
    name = member.name.encode("utf-8", "surrogateescape")
    if member.isdir():
        staging.add_folder(name)
    elif member.issym():
        staging.add_link(name, member.linkname.encode("utf-8", "surrogateescape"))
    elif member.islnk():
        staging.add_copy(name, member.linkname.encode("utf-8", "surrogateescape"))
    elif member.isfile():
        if name.endswith(b"/"):  # written by tools older than folders in tar
            if member.size:
                raise UnsafeMember(name, "is a folder by its name and a file by its bytes")
            staging.add_folder(name)
            return
        pieces = _read_sparse(member, stream) if member.issparse() else stream.take_exactly(member.size)
        staging.add_file(name, pieces, executable=bool(member.mode & 0o100))
    elif member.type != _VOLUME_LABEL:
        kind = _KINDS.get(member.type, f"of the unknown kind '{member.type.decode('latin-1')}'")
        raise UnsafeMember(name, f"is {kind}")


def _read_sparse(member: tarfile.TarInfo, stream: _TarStream) -> Iterator[bytes | memoryview]:
    """The bytes of a sparse file, its holes as zeros."""
    position = 0
    for start, size in cast("list[tuple[int, int]]", member.sparse):
        if size == 0:  # an entry that is not used
            continue
        if start < position or size < 0 or start + size > member.size:
            raise BrokenArchive("a map of a sparse file is corrupt")
        yield from _make_zeros(start - position)
        yield from stream.take_exactly(size)
        position = start + size
    yield from _make_zeros(member.size - position)


def _make_zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - start]


def _check_rest(stream: _TarStream) -> None:
    """After the end marker only zeros may come, which fill the last record; reading them checks the compression."""
    if not stream.ended:
        raise BrokenArchive("it ends without the marker of a tar's end: it was cut short")
    while rest := stream.take(len(_ZEROS)):
        if rest != _ZEROS[: len(rest)]:
            raise BrokenArchive("something else follows the tar's end, such as a second tar")
