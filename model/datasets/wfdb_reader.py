"""WFDB records of any format, layout and mixture of rates, as one int16 array.

`wfdb` decodes the signal files; `layout` decides what the header leaves open: segments with different gains are brought
to one, signals of a lower rate are held up to the highest one, each format's own mark of a missing sample becomes
`MISSING`, and formats wider than 16 bits are scaled into int16 by the range of the whole record, so that a part that is
read alone equals the same part of the whole.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.datasets.layout import Layout, layout_of, read_segment, wrapped
from model.datasets.record import MISSING, Annotations, DatasetError, Info, Record

_END = b"\0\0"  # what an annotation file ends with


def info(path: Path | str) -> Info:
    """What a record is, without its samples. Raises DatasetError."""
    return layout_of(Path(path)).info


def read(
    path: Path | str,
    start_s: float = 0.0,
    duration_s: float | None = None,
    *,
    leads: Sequence[str] | None = None,
    annotator: str | None = "atr",
) -> Record:
    """A record, or the part of it from `start_s` on that lasts `duration_s`, and its annotations where it has some.

    `leads` picks signals by name, case aside, and gives their order. A read of the whole record compares the checksums
    of its header. Raises DatasetError for a header or a signal file that is missing, cut short or corrupt, for a lead
    that is not there, and for a start behind the end.
    """
    path = Path(path)
    layout = layout_of(path)
    about = layout.info
    first, last = _range(about, start_s, duration_s)
    chosen = _choose(about, leads)
    digital = np.full((len(chosen), last - first), MISSING, np.int16)
    _fill(layout, digital, chosen, first, last)
    notes = annotations(path, annotator, first, last) if annotator else None
    signals = tuple(about.signals[i] for i in chosen)
    return Record(about.name, about.fs, signals, digital, notes, about.comments, path, first, about.frame)


def annotations(
    path: Path | str, annotator: str = "atr", first: int = 0, last: int | None = None
) -> Annotations | None:
    """Annotations of samples first <= s < last, counted from `first`; None where the record has no such file.

    `annotator` is the extension of the file. Raises DatasetError for a file that is not an annotation file.
    """
    path = Path(path)
    if not (path.parent / f"{path.name}.{annotator}").is_file():
        return None
    about = info(path)
    raw = annotation_file(path, annotator)
    sample = np.asarray(raw.sample, np.int64)
    if raw.fs and raw.fs != about.fs:
        sample = np.round(sample * (about.fs / float(raw.fs))).astype(np.int64)
    order = np.argsort(sample, kind="stable")
    stop = sample.size if last is None else int(np.searchsorted(sample[order], last))
    order = order[int(np.searchsorted(sample[order], first)) : stop]
    return Annotations(
        sample[order] - first,
        [str(raw.symbol[i]) for i in order],
        [str(raw.aux_note[i]).rstrip("\x00") for i in order],
        np.asarray(raw.subtype, np.int16)[order],
        np.asarray(raw.num, np.int16)[order],
        np.asarray(raw.chan, np.int16)[order],
    )


def annotation_file(path: Path, annotator: str) -> Any:
    """What `wfdb` reads of the file `path`.`annotator`. Raises DatasetError for one that is not an annotation file."""
    name = f"{path.name}.{annotator}"
    with wrapped(path, f"the annotation file {name} cannot be read", "get it again, or annotate the record anew"):
        import wfdb

        content = (path.parent / name).read_bytes()
        if not content:
            raise ValueError("it is empty")
        if not content.endswith(_END):  # `wfdb` takes any pairs of bytes for annotations
            raise ValueError("it does not end as one: it is cut short, or something else")
        found = wfdb.rdann(str(path), annotator)
        if len(found.sample) and min(found.sample) < 0:
            raise ValueError(f"it places an annotation at sample {min(found.sample)}")
        return found


def _range(about: Info, start_s: float, duration_s: float | None) -> tuple[int, int]:
    if not 0 <= start_s < np.inf:
        raise DatasetError(f"{about.name}: start_s {start_s} is not a time in the record; give 0 or more")
    if duration_s is not None and not 0 < duration_s < np.inf:
        raise DatasetError(f"{about.name}: duration_s {duration_s} reads nothing; give more than 0, or None for all")
    first = round(start_s * about.fs)
    last = about.n if duration_s is None else min(about.n, round((start_s + duration_s) * about.fs))
    if first >= about.n:
        length_s = about.n / about.fs
        raise DatasetError(f"{about.name}: start_s {start_s:g} is behind the end at {length_s:g} s; start before it")
    return first, max(last, first + 1)


def _choose(about: Info, leads: Sequence[str] | None) -> list[int]:
    if leads is None:
        return list(range(len(about.signals)))
    names = [signal.name.lower() for signal in about.signals]
    for lead in leads:
        if lead.lower() not in names:
            known = ", ".join(signal.name for signal in about.signals)
            raise DatasetError(f"{about.name}: lead {lead!r} is not in the record; choose among {known}")
    return [names.index(lead.lower()) for lead in leads]


def _fill(layout: Layout, digital: npt.NDArray[np.int16], chosen: list[int], first: int, last: int) -> None:
    """Put samples first..last of the chosen signals into `digital`, segment by segment."""
    begin, frame = 0, layout.info.frame
    for segment in layout.segments:
        end = begin + segment.n_frames * frame
        low, high = max(first, begin), min(last, end)
        here = [row for row, index in enumerate(chosen) if segment.local[index] is not None]
        if low < high and here:
            wanted = [chosen[row] for row in here]
            frames = (low - begin) // frame, -(-(high - begin) // frame)
            skip = (low - begin) - frames[0] * frame
            for row, values in zip(here, read_segment(layout, segment, wanted, *frames), strict=True):
                digital[row, low - first : high - first] = values[skip : skip + high - low]
        begin = end
