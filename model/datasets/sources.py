"""Where recordings are: a record, a folder of records, or the name of a public database."""

import os
import re
from pathlib import Path

from model.datasets.record import DatasetError

_PUBLIC = re.compile(r"^[a-z][a-z0-9-]*(?:/[A-Za-z0-9_.-]+)*$")
_NUMBER = re.compile(r"(\d+)")


def find(source: str | Path, *, download: bool = True) -> list[Path]:
    """The records that `source` means, as paths without suffix, in natural order.

    `source`: the path of a record (with or without `.hea`), of a folder (searched with its subfolders), or a public
    name, `mitdb` or `mitdb/208`, looked for under $RECORDINGS, then in the cache, then on PhysioNet (if `download`).
    Raises DatasetError where nothing is found.
    """
    text = str(source)
    if not text.strip():  # a path of nothing would be the working folder
        raise DatasetError(f"{text!r} names no source; give a path, or a public name such as mitdb/208")
    path = Path(text).expanduser()
    found = _local(path)
    if found:
        return found
    if path.is_dir():
        raise DatasetError(f"{text}: the folder holds no record (no .hea file); name one that does")
    if not _PUBLIC.match(text) or ".." in path.parts:
        raise DatasetError(f"{text}: no such record or folder; give a path, or a public name such as mitdb/208")
    from model.fetch import COMPLETE, FetchError, fetch

    own, cache = os.environ.get("RECORDINGS"), cache_folder()
    found = _named(Path(own), text) if own else []
    # A fetch that broke off leaves a part of a database in the cache, which must not pass for all of it.
    if not found and ("/" in text or (cache / text / COMPLETE).exists()):
        found = _named(cache, text)
    if found:
        return found
    places = f"{own} nor {cache}" if own else f"{cache} (RECORDINGS is not set)"
    if not download:
        raise DatasetError(f"{text}: not found under {places}; set RECORDINGS or fetch it")
    try:
        fetch(text, cache)
    except FetchError as error:
        raise DatasetError(f"{text}: not found under {places}, nor on PhysioNet: {error}") from None
    found = _named(cache, text)
    if not found:
        raise DatasetError(f"{text}: PhysioNet has it, but it holds no record; choose another database")
    return found


def cache_folder() -> Path:
    """Where fetched databases are kept: $WARDBEAT_CACHE, else `wardbeat` in the user's cache folder."""
    own = os.environ.get("WARDBEAT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardbeat"


def records_in(folder: Path) -> list[Path]:
    """All records of a folder and its subfolders; segments of multi-segment records are not records of their own."""
    headers = sorted(folder.rglob("*.hea"), key=_natural)
    segments: set[Path] = set()
    for header in headers:
        segments |= _segments_named(header)
    paths = [header.with_suffix("") for header in headers]
    return [path for path in paths if path not in segments]


def _local(path: Path) -> list[Path]:
    if path.is_dir():
        return records_in(path)
    record = path.with_suffix("") if path.suffix in {".hea", ".dat"} else path
    return [record] if (record.parent / f"{record.name}.hea").is_file() else []


def _named(root: Path, name: str) -> list[Path]:
    """The records of a public name under `root`; a record may lie in a subfolder of its database."""
    found = _local(root / name)
    database, _, record = name.partition("/")
    if found or not record or "/" in record or not (root / database).is_dir():
        return found
    return sorted(path.with_suffix("") for path in (root / database).glob(f"**/{record}.hea"))[:1]


def _segments_named(header: Path) -> set[Path]:
    """Paths of the segments that a multi-segment header names; empty for any other header."""
    with header.open("rb") as file:
        lines = (line.split() for line in file.read(1 << 20).splitlines() if line.strip() and line[:1] != b"#")
        first = next(lines, [])
        if not first or b"/" not in first[0]:
            return set()
        names = [line[0].decode("ascii", "replace") for line in lines if line[0] != b"~"]
    return {header.parent / name for name in names}


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in _NUMBER.split(str(path))]
