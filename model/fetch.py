"""Public databases from PhysioNet, into a cache: checked, taken up again where it broke off, never half there.

    >>> fetch("mitdb/208", Path("cache"))

Each file goes to `NAME.part` and gets its name when its size is right, and its checksum where the database has a
`SHA256SUMS.txt`. After an interruption (the network gone, Ctrl-C) the next call goes on with what is missing.
"""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urljoin, urlsplit

HOST = "https://physionet.org"
COMPLETE = ".complete"  # in a folder of the cache that holds the whole database
_NAME = re.compile(r"^[a-z][a-z0-9-]*$")
_VERSION = re.compile(rb"/(?:content|files)/[a-z0-9-]+/(\d+(?:\.\d+)*)/")
_TIMEOUT_S = 30.0
_TRIES = 3
_PIECE = 1 << 18
_MAX_INDEX_BYTES = 32 << 20

Progress = Callable[[str, int, int], None]  # (file, bytes so far, bytes in all or 0), called as it goes


class FetchError(OSError):
    """A database that could not be got: what, where, and the mend."""


def fetch(name: str, cache: Path, *, host: str | None = None, progress: Progress | None = None) -> Path:
    """Get a database, `mitdb`, or one record of it, `mitdb/208`, into `cache`; its folder there.

    progress: told as it goes; None for a bar on standard error where that is a terminal. What is in the cache and
    right is not got again; a whole database leaves the file `COMPLETE` there. Raises FetchError.
    """
    host = host or HOST
    database, _, record = name.partition("/")
    if not _NAME.match(database) or ".." in PurePosixPath(record).parts:
        raise FetchError(f"{name}: not the name of a database; give one such as mitdb or mitdb/208")
    folder = cache / database
    base = f"{host}/files/{database}/{_version(host, database)}/"
    sums = _sums(base)
    # A header comes last: a record that has one has its signals.
    files = sorted(_files_of(base, record, sums), key=lambda file: file.endswith(".hea"))
    if not files:
        raise FetchError(f"{name}: {base} has no such record; see its RECORDS file")
    folder.mkdir(parents=True, exist_ok=True)
    with _Bar(progress, len(files)) as bar:
        for file in files:
            _get(urljoin(base, quote(file)), folder / file, sums.get(file), bar)
    if not record:
        (folder / COMPLETE).touch()
    return folder


def _version(host: str, database: str) -> str:
    """The newest version that the database's page links to."""
    page = _read(f"{host}/content/{database}/")
    found = _VERSION.findall(page)
    if not found:
        raise FetchError(f"{database}: {host} names no version of it; check the name at {host}/about/database/")
    versions = {str(text, "ascii") for text in found}
    return max(versions, key=lambda text: [int(part) for part in text.split(".")])


def _sums(base: str) -> dict[str, str]:
    """SHA-256 by file, empty where the database gives none."""
    try:
        text = _read(urljoin(base, "SHA256SUMS.txt")).decode("utf-8", "replace")
    except _NotThere:
        return {}
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {
        pair[1].strip().lstrip("*").removeprefix("./"): pair[0].lower()
        for pair in pairs
        if len(pair) == 2 and _safe(pair[1].strip().lstrip("*"))
    }


def _files_of(base: str, record: str, sums: dict[str, str]) -> list[str]:
    """The files to get, of one record or of all."""
    if sums:
        if not record:
            return sorted(sums)
        return sorted(file for file in sums if _belongs(file, record))
    records = [record] if record else _read(urljoin(base, "RECORDS")).decode("utf-8", "replace").split()
    try:
        annotators = [line.split()[0] for line in _read(urljoin(base, "ANNOTATORS")).decode().splitlines() if line]
    except _NotThere:
        annotators = []
    files: list[str] = []
    for one in filter(_safe, records):
        header = f"{one}.hea"
        try:
            text = _read(urljoin(base, quote(header))).decode("latin-1")
        except _NotThere:
            continue
        files += [header, *_named_in(header, text), *(f"{one}.{extension}" for extension in annotators)]
    return list(dict.fromkeys(files))


def _named_in(header: str, text: str) -> list[str]:
    """Signal files that a header names."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")][1:]
    names = dict.fromkeys(line.split()[0] for line in lines)
    parent = PurePosixPath(header).parent
    return [str(parent / name) for name in names if _safe(name) and "." in name]


def _belongs(file: str, record: str) -> bool:
    path = PurePosixPath(file)
    return str(path.with_suffix("")) == record or (path.stem == record and "/" not in record)


def _safe(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _get(url: str, path: Path, expected: str | None, bar: "_Bar") -> None:
    """Download `url` to `path` unless it is there and right; goes on with a part that is there."""
    if path.is_file() and (expected is None or _sha256(path) == expected):
        bar.file_done(path.name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for left in range(_TRIES - 1, -1, -1):
        try:
            _download(url, part, bar)
        except _NotThere:
            if expected is not None:
                raise FetchError(
                    f"{url}: the list of checksums names it, but it is not there; try again later"
                ) from None
            bar.file_done(path.name)  # an annotator need not have been over every record
            return
        except (OSError, http.client.HTTPException) as error:
            if left:
                continue
            raise FetchError(f"{url}: {_why(error)}; check the network and try again, it goes on from there") from None
        if expected is None or _sha256(part) == expected:
            part.replace(path)
            bar.file_done(path.name)
            return
        part.unlink()
    raise FetchError(f"{url}: what comes does not have the SHA-256 {expected} of the database; try again later")


def _download(url: str, part: Path, bar: "_Bar") -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part is whole already, or longer than the file
            raise
        part.unlink()
        response = _open(urllib.request.Request(url))
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        whole = have + int(length) if length else 0
        with part.open("ab" if have else "wb") as file:
            while piece := response.read(_PIECE):
                file.write(piece)
                have += len(piece)
                bar.bytes_done(part.name.removesuffix(".part"), have, whole)
    if whole and have != whole:
        raise OSError(f"it broke off after {have} of {whole} bytes")


class _NotThere(FetchError):
    """404."""


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    if urlsplit(request.full_url).scheme not in {"http", "https"}:
        raise FetchError(f"{request.full_url}: not a web address; give http:// or https://")
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise _NotThere(f"{request.full_url} is not there; check the name") from None
        raise
    return response


def _read(url: str) -> bytes:
    """A small file, as a whole."""
    try:
        with _open(urllib.request.Request(url)) as response:
            content = response.read(_MAX_INDEX_BYTES)
    except FetchError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{url} cannot be read ({_why(error)}); check the network, or set RECORDINGS") from None
    return content


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class _Bar:
    """A progress bar over all files, or the caller's `progress`."""

    def __init__(self, progress: Progress | None, n_files: int) -> None:
        self._progress, self._n_files = progress, n_files

    def __enter__(self) -> "_Bar":
        from tqdm import tqdm

        quiet = None if self._progress is None else True  # None: off where standard error is no terminal
        self._bar = tqdm(total=self._n_files, unit="file", disable=quiet)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def bytes_done(self, name: str, n: int, whole: int) -> None:
        self._bar.set_postfix_str(f"{name} {n / 1e6:.1f} MB", refresh=True)
        if self._progress is not None:
            self._progress(name, n, whole)

    def file_done(self, name: str) -> None:
        self._bar.update()
