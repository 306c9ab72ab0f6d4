"""The layout of a WFDB record: its segments, and how the samples of each become int16 at one rate and one gain."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.datasets.record import MISSING, DatasetError, Info, SignalInfo, kind_of, millivolts

_MISSING_OF = {"80": -(2**7), "508": -(2**7), "310": -(2**9), "311": -(2**9), "212": -(2**11), "8": None}
_MISSING_OF |= {"24": -(2**23), "524": -(2**23), "32": -(2**31)}
_WIDE = frozenset({"24", "524", "32"})
_FLAC = frozenset({"508", "516", "524"})
_BYTES_OF = {"8": 1.0, "80": 1.0, "212": 1.5, "310": 4 / 3, "311": 4 / 3, "24": 3.0, "32": 4.0}  # the others take 2
_MAX_NAME = 64
_SPAN = 65_000  # of int16, kept clear of its ends: -32768 is taken


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a record that one header describes. `local[i]`: index in it of signal i, None where it is not in
    it. `scale[i]`, `shift[i]`: digital value out = in * scale + shift. header: wfdb's; None for a gap."""

    n_frames: int
    header: Any
    local: tuple[int | None, ...]
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A record and its segments in order."""

    info: Info
    segments: tuple[Segment, ...]


def layout_of(path: Path) -> Layout:
    """Layout of the record at `path` (without suffix). Raises DatasetError. The files are checked, not read."""
    header = path.parent / f"{path.name}.hea"
    try:
        stat = header.stat()
    except OSError:
        raise DatasetError(f"{path}: there is no header {header.name}; name a record without its suffix") from None
    with wrapped(path, "the header makes no sense", "mend it or get the record again"):
        return _layout(path, stat.st_mtime_ns, stat.st_size)


@contextmanager
def wrapped(path: Path, what: str, mend: str) -> Iterator[None]:
    """Turn whatever `wfdb` and its decoders raise, which is not specified, into one DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path.name}: {what} ({text[:160]}); {mend}") from None


def read_segment(
    layout: Layout, segment: Segment, signals: list[int], first: int, last: int
) -> list[npt.NDArray[np.int16]]:
    """Samples of frames first..last of a segment, int16 at the record's rate, gain and baseline, for each of `signals`
    (indices of the record's signals, all of which are in the segment)."""
    frame = layout.info.frame
    raw = _raw(layout.info.path, segment, sorted({_index(segment, i) for i in signals}), first, last)
    out = []
    for signal in signals:
        index = _index(segment, signal)
        values = raw[index]
        mark = _MISSING_OF.get(segment.header.fmt[index], MISSING)
        missing = values == mark if mark is not None else np.zeros(values.shape, bool)
        if segment.scale[signal] != 1.0 or segment.shift[signal] != 0.0:
            values = np.rint(values * segment.scale[signal] + segment.shift[signal])
        narrow = np.clip(values, MISSING + 1, -MISSING - 1).astype(np.int16)
        narrow[missing] = MISSING
        rate = segment.header.samps_per_frame[index]
        out.append(narrow if rate == frame else narrow[np.arange((last - first) * frame) * rate // frame])
    return out


@lru_cache(maxsize=4096)
def _layout(path: Path, _mtime_ns: int, _size: int) -> Layout:
    header = _header(path)
    segments = _segments(path, header)
    present = [segment for segment in segments if segment.header is not None and segment.header.n_sig]
    if not present:
        raise DatasetError(f"{path.name}: the header names no signal; choose a record that has some")
    for segment in present:
        _check_files(path, segment)
    frame = max(rate for segment in present for rate in segment.header.samps_per_frame)
    n_frames = sum(segment.n_frames for segment in segments)
    if n_frames == 0:
        raise DatasetError(f"{path.name}: the record has 0 samples; choose one that has some")
    names = _names(path, header, segments)
    signals, segments = _one_gain(path, names, segments)
    comments = tuple(header.comments)
    about = Info(path.name, path, float(header.fs) * frame, n_frames * frame, signals, comments, frame)
    return Layout(about, segments)


def _header(path: Path) -> Any:
    with wrapped(path, "the header cannot be read", "mend it or get the record again"):
        import wfdb

        header = wfdb.rdheader(str(path))
    fs = header.fs
    if fs is None or not isfinite(fs) or fs <= 0:
        raise DatasetError(f"{path.name}: the rate is {fs} Hz; put the sampling rate into the header, above 0")
    return header


def _segments(path: Path, header: Any) -> tuple[Segment, ...]:
    if not hasattr(header, "seg_name"):
        n = header.n_sig or 0
        return (Segment(_n_frames(path, header), header, tuple(range(n))),)
    layout_header = _header(path.parent / header.seg_name[0]) if header.layout == "variable" else None
    segments = []
    for name, length in zip(header.seg_name, header.seg_len, strict=True):
        if name == "~" or length == 0:
            segments.append(Segment(int(length), None, (None,) * header.n_sig))
            continue
        inner = _header(path.parent / name)
        if inner.fs != header.fs:
            rates = f"{inner.fs} Hz, the record at {header.fs} Hz"
            raise DatasetError(f"{path.name}: segment {name} is at {rates}; make the headers agree")
        if layout_header is None:
            local: tuple[int | None, ...] = tuple(range(inner.n_sig))
        else:
            here = list(inner.sig_name)
            local = tuple(here.index(s) if s in here else None for s in layout_header.sig_name)
        if len(local) != header.n_sig:
            counts = f"{len(local)} signals, the record {header.n_sig}"
            raise DatasetError(f"{path.name}: segment {name} has {counts}; make the headers agree")
        segments.append(Segment(int(length), inner, local))
    return tuple(segments)


def _n_frames(path: Path, header: Any) -> int:
    if header.sig_len is not None:
        return int(header.sig_len)
    if not header.n_sig:
        return 0
    return min(_available(path, header, name) for name in set(header.file_name))


def _available(path: Path, header: Any, name: str) -> int:
    """Frames that a signal file holds."""
    file = path.parent / name
    if not file.is_file():
        raise DatasetError(f"{path.name}: the header names the signal file {name}, which is not there; get it too")
    mine = [i for i, other in enumerate(header.file_name) if other == name]
    per_frame, fmt = sum(header.samps_per_frame[i] for i in mine), header.fmt[mine[0]]
    if fmt in _FLAC:
        with wrapped(path, f"the signal file {name} is cut short or not FLAC", "get it again"):
            import soundfile

            with soundfile.SoundFile(file) as flac:
                n = int(flac.frames)
                flac.seek(max(0, n - 1))
                if n and len(flac.read(1, dtype="int32")) != 1:
                    raise ValueError(f"sample {n - 1} is missing")
            return n // int(header.samps_per_frame[mine[0]])
    n_bytes = file.stat().st_size - (header.byte_offset[mine[0]] or 0)
    return int(n_bytes / (_BYTES_OF.get(fmt, 2.0) * per_frame) + 1e-9)


def _check_files(path: Path, segment: Segment) -> None:
    header = segment.header
    for name in dict.fromkeys(header.file_name or ()):
        available = _available(path, header, name)
        if available < segment.n_frames:
            raise DatasetError(
                f"{path.name}: {name} is cut short: it holds {available} samples per signal of the {segment.n_frames} "
                "that the header promises; get it again"
            )


def _names(path: Path, header: Any, segments: tuple[Segment, ...]) -> list[str]:
    if getattr(header, "layout", None) == "variable":
        raw = _header(path.parent / header.seg_name[0]).sig_name
    else:
        raw = next(s.header.sig_name for s in segments if s.header is not None)
    names: list[str] = []
    for index, name in enumerate(raw):
        text = "".join(c for c in (name or "") if c.isprintable()).strip()[: _MAX_NAME - 5] or f"signal {index}"
        copies = sum(other == text or other.startswith(f"{text} (") for other in names)
        names.append(f"{text} ({copies + 1})" if copies else text)
    return names


def _one_gain(
    path: Path, names: list[str], segments: tuple[Segment, ...]
) -> tuple[tuple[SignalInfo, ...], tuple[Segment, ...]]:
    """The gain and baseline that each signal has in the whole record, and each segment's way to it."""
    signals = []
    scales: list[list[float]] = [[] for _ in segments]
    shifts: list[list[float]] = [[] for _ in segments]
    for signal, name in enumerate(names):
        having = [s for s in segments if s.header is not None and s.local[signal] is not None]
        unit, gain, baseline = "", 1.0, 0
        if having:
            unit, gain, baseline = _calibration(path, having[0], signal)
            if any(s.header.fmt[_index(s, signal)] in _WIDE for s in having):
                gain, baseline = _narrowed(path, having, signal, gain, baseline)
        for i, segment in enumerate(segments):
            scale, shift = 1.0, 0.0
            if segment.header is not None and segment.local[signal] is not None:
                _, own_gain, own_baseline = _calibration(path, segment, signal)
                scale = gain / own_gain
                shift = baseline - own_baseline * scale
            scales[i].append(scale)
            shifts[i].append(shift)
        if gain < 0:  # the wire takes no negative gain: turn the samples over instead
            gain, baseline = -gain, -baseline
            for i in range(len(segments)):
                scales[i][-1], shifts[i][-1] = -scales[i][-1], -shifts[i][-1]
        kind = kind_of(name, unit)
        try:
            unit, gain = millivolts(kind, unit, gain)
        except ValueError as error:
            raise DatasetError(f"{path.name}: signal {name} {error}") from None
        signals.append(SignalInfo(name, kind, unit, gain, baseline))
    return tuple(signals), tuple(
        replace(s, scale=tuple(scales[i]), shift=tuple(shifts[i])) for i, s in enumerate(segments)
    )


def _calibration(path: Path, segment: Segment, signal: int) -> tuple[str, float, int]:
    index = _index(segment, signal)
    gain, baseline = segment.header.adc_gain[index], segment.header.baseline[index]
    if gain is None or not isfinite(gain):
        raise DatasetError(f"{path.name}: the gain of signal {signal} is {gain}; put adu per unit into the header")
    return segment.header.units[index] or "mV", float(gain) or 200.0, int(baseline or 0)


def _narrowed(path: Path, segments: list[Segment], signal: int, gain: float, baseline: int) -> tuple[float, int]:
    """Gain and baseline under which the whole of a wide signal fits into int16; as they are where it does already."""
    low, high = np.inf, -np.inf
    for segment in segments:
        _, own_gain, own_baseline = _calibration(path, segment, signal)
        index = _index(segment, signal)
        values = _raw(path, segment, [index], 0, segment.n_frames)[index]
        values = values[values != _MISSING_OF.get(segment.header.fmt[index], MISSING)]
        if values.size:
            ends = ((values.min() - own_baseline) / own_gain, (values.max() - own_baseline) / own_gain)
            low, high = min(low, *ends), max(high, *ends)
    if low > high or max(abs(low * gain + baseline), abs(high * gain + baseline)) <= -MISSING - 1:
        return gain, baseline
    gain /= max(1.0, (high - low) * abs(gain) / _SPAN)
    return gain, -round((low + high) / 2 * gain)


def _raw(path: Path, segment: Segment, indices: list[int], first: int, last: int) -> dict[int, npt.NDArray[np.int32]]:
    """Samples as stored, by index in the segment."""
    header = segment.header
    with wrapped(path, "its samples cannot be decoded", "get the record again"):
        import wfdb

        record = wfdb.rdrecord(
            str(path.parent / header.record_name),
            sampfrom=first,
            sampto=last,
            channels=indices,
            physical=False,
            smooth_frames=False,
            return_res=32,
        )
        found = dict(zip(indices, record.e_d_signal, strict=True))
    for index, values in found.items():
        expected = (last - first) * header.samps_per_frame[index]
        if len(values) != expected:
            raise DatasetError(f"{path.name}: {len(values)} of {expected} samples could be read; get the record again")
        if first == 0 and last == segment.n_frames and not (header.skew and header.skew[index]):
            _check_sum(path, header.checksum[index], values, header.sig_name[index])
    return found


def _check_sum(path: Path, expected: int | None, values: npt.NDArray[np.int32], name: str) -> None:
    if expected and (int(values.sum(dtype=np.int64)) - expected) & 0xFFFF:
        found = int(values.sum(dtype=np.int64)) & 0xFFFF
        raise DatasetError(
            f"{path.name}: {name} is corrupt: its samples sum up to {found}, the header says {expected & 0xFFFF}; "
            "get the record again, or set the checksum in the header to 0 if you trust it"
        )


def _index(segment: Segment, signal: int) -> int:
    index = segment.local[signal]
    assert index is not None  # callers ask for signals that the segment has
    return index
