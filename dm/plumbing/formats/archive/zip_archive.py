"""zip: `zipfile` reads the directory, the members' bytes are read here.

`zipfile` cuts a member at its declared size without a word, takes one that is shorter, and (before 3.11.8) two members
that share bytes: the quoted bombs of https://www.bamsoftware.com/hacks/zipbomb/. Format: PKWARE APPNOTE 6.3.10.
"""

from __future__ import annotations

import errno
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO, cast

from dm.plumbing.formats.archive import decoders
from dm.plumbing.formats.archive.faults import BrokenArchive, UnsafeMember, UnsupportedArchive
from dm.plumbing.formats.archive.names import PATH_BYTES_MAX
from dm.plumbing.formats.archive.staging import Staging

_CHUNK_BYTES = 256 << 10
# Local file header, APPNOTE 4.3.7: signature; version, flags, method, time, date; CRC, sizes; name's, extra's length.
_LOCAL_HEADER = struct.Struct("<4s5HLLLHH")
_ENCRYPTED = 0x0001
_PATCHED = 0x0020
_UTF8_NAME = 0x0800
# "version made by", APPNOTE 4.4.2.2: whose attributes a member carries.
_UNIX_SYSTEMS = (3, 19)
_DOS_SYSTEMS = (0, 10, 14)
_METHOD_NAMES = {1: "shrink", 6: "implode", 9: "deflate64", 20: "zstd", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES"}


def unpack_zip(archive: BinaryIO, staging: Staging, advance: Callable[[int], None]) -> None:
    """Read a zip into a staging folder; ``advance`` is told the position that has been reached in the file.

    Raises `ArchiveFault` kinds and OSError.
    """
    directory = _read_directory(archive)
    members = sorted(directory.infolist(), key=lambda member: member.header_offset)
    if members and members[0].header_offset < 0:
        raise BrokenArchive("its beginning is missing")
    ends = [*(member.header_offset for member in members), directory.start_dir][1:]
    for member, end in zip(members, ends, strict=True):
        _unpack_member(archive, member, end, staging)
        advance(end)


def _read_directory(archive: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(cast(IO[bytes], archive))
    except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, struct.error) as error:
        raise BrokenArchive(f"it is cut short or no zip ({error})") from error
    except NotImplementedError as error:
        raise UnsupportedArchive(f"it is made for a newer zip ({error})") from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # a directory that begins before the file
            raise BrokenArchive("its directory is corrupt") from error
        raise


def _unpack_member(archive: BinaryIO, member: zipfile.ZipInfo, end: int, staging: Staging) -> None:
    stored_name = member.orig_filename.encode("utf-8" if member.flag_bits & _UTF8_NAME else "cp437")
    name = _find_name(member, stored_name)
    mode = member.external_attr >> 16 if member.create_system in _UNIX_SYSTEMS else 0
    kind = stat.S_IFMT(mode)
    if member.flag_bits & _ENCRYPTED:
        raise UnsafeMember(name, "is encrypted")
    if name.endswith(b"/") or kind == stat.S_IFDIR:
        if member.file_size:
            raise UnsafeMember(name, "is a folder by its name and a file by its bytes")
        staging.add_folder(name)
        return
    if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise UnsafeMember(name, "is a device, fifo or socket")
    compressed = _find_bytes(archive, member, stored_name, end)
    pieces = _read_member(archive, member, name, compressed)
    if kind == stat.S_IFLNK:
        if member.file_size > PATH_BYTES_MAX:
            raise UnsafeMember(name, f"is a link to a path of more than {PATH_BYTES_MAX} bytes")
        staging.add_link(name, b"".join(pieces))
    else:
        staging.add_file(name, pieces, executable=bool(mode & 0o100))


def _find_name(member: zipfile.ZipInfo, stored_name: bytes) -> bytes:
    """The member's name in UTF-8.

    Without the flag that says so, names are code page 437 by the specification, but macOS and many tools write UTF-8
    all the same: what is UTF-8 is taken for it. Old Windows tools write backslashes between folders.
    """
    if member.flag_bits & _UTF8_NAME or stored_name.isascii():
        name = stored_name
    else:
        try:
            name = stored_name.decode("utf-8").encode("utf-8")
        except UnicodeDecodeError:
            name = stored_name.decode("cp437").encode("utf-8")
    if b"\\" in name and member.create_system in _DOS_SYSTEMS:
        return name.replace(b"\\", b"/")
    return name


def _find_bytes(archive: BinaryIO, member: zipfile.ZipInfo, stored_name: bytes, end: int) -> int:
    """Go to the member's compressed bytes and return how many they are.

    Raises `BrokenArchive` when its local header is not the directory's, `UnsafeMember` when its bytes reach into
    another member or the directory.
    """
    archive.seek(member.header_offset)
    header = archive.read(_LOCAL_HEADER.size)
    if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise BrokenArchive("its directory points to something that is no member")
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)[9:11]
    if archive.read(name_bytes) != stored_name:
        raise UnsafeMember(stored_name, "has another name in its own header than in the directory")
    archive.seek(extra_bytes, 1)
    begin = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if begin + member.compress_size > end:
        raise UnsafeMember(stored_name, "shares its bytes with another member, as bombs do")
    return member.compress_size


def _read_member(archive: BinaryIO, member: zipfile.ZipInfo, name: bytes, compressed: int) -> Iterator[bytes]:
    """The member's bytes in pieces, which are as many as declared and have the declared CRC, or `BrokenArchive`."""
    import zlib

    said = f"member '{name.decode('utf-8', 'replace')}'"
    checksum = 0
    size = 0
    for piece in _decode_member(archive, member, compressed):
        size += len(piece)
        if size > member.file_size:
            raise BrokenArchive(f"{said} is longer than it says")
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if size != member.file_size:
        raise BrokenArchive(f"{said} is shorter than it says")
    if checksum != member.CRC:
        raise BrokenArchive(f"{said} does not have its CRC")


def _decode_member(archive: BinaryIO, member: zipfile.ZipInfo, compressed: int) -> Iterator[bytes]:
    if member.compress_type == zipfile.ZIP_STORED:
        yield from _read_chunks(archive, compressed)
        return
    if member.flag_bits & _PATCHED:
        raise UnsupportedArchive("it holds patches instead of files")
    if member.compress_type == zipfile.ZIP_LZMA:
        properties, compressed = _read_lzma_properties(archive, compressed)
        decoder = decoders.make_lzma_decoder(properties)
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        decoder = decoders.make_deflate_decoder()
    elif member.compress_type == zipfile.ZIP_BZIP2:
        decoder = decoders.make_bzip2_decoder()
    else:
        method = _METHOD_NAMES.get(member.compress_type, f"number {member.compress_type}")
        raise UnsupportedArchive(f"it is compressed by a method that is not known here: {method}")
    for chunk in _read_chunks(archive, compressed):
        if decoder.ended:
            raise BrokenArchive("something follows a member's compressed data")
        yield from decoder.feed(chunk)
    if decoder.rest:
        raise BrokenArchive("something follows a member's compressed data")
    if not decoder.ended and member.compress_type != zipfile.ZIP_LZMA:  # lzma may do without an end marker
        raise BrokenArchive("a member's compressed data are cut short")


def _read_lzma_properties(archive: BinaryIO, compressed: int) -> tuple[bytes, int]:
    """The properties before a member's lzma data (APPNOTE 5.8.8) and how many bytes follow them."""
    head = archive.read(min(compressed, 4))
    length = int.from_bytes(head[2:4], "little")
    if len(head) != 4 or length != 5 or compressed < 9:
        raise BrokenArchive("a member's lzma properties are corrupt")
    return archive.read(length), compressed - 4 - length


def _read_chunks(archive: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = archive.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise BrokenArchive("it ends in the middle of a member")
        size -= len(chunk)
        yield chunk
