"""Annotations as the scoring reads them: samples, symbols, subtypes and notes of one annotator."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb

from model.datasets.wfdb_reader import annotation_file

Samples = npt.NDArray[np.int64]
Symbols = Sequence[str] | npt.NDArray[np.str_]

SHUTDOWN_BITS = 0x30  # both in the subtype of a NOISE mark: no signal is readable


@dataclass(frozen=True, slots=True)
class Marks:
    """One annotator's marks of one record, in order of time.

    sample: int64 (n,), samples of the record; symbol: n WFDB mnemonics; subtype: int64 (n,); aux: n notes
    (a rhythm such as `(AFIB`), without the trailing NUL that some files carry.
    """

    sample: Samples
    symbol: tuple[str, ...]
    subtype: Samples
    aux: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.symbol)


def marks(
    samples: npt.ArrayLike,
    symbols: Symbols,
    subtypes: npt.ArrayLike | None = None,
    aux: Sequence[str] | None = None,
) -> Marks:
    """Marks of plain arrays, sorted by time (marks of one sample keep their order).

    Raises ValueError where the lengths differ.
    """
    at = np.asarray(samples, dtype=np.int64).reshape(-1)
    kind = np.zeros(at.size, np.int64) if subtypes is None else np.asarray(subtypes, dtype=np.int64).reshape(-1)
    notes = [""] * at.size if aux is None else [str(note or "").rstrip("\x00") for note in aux]
    if not at.size == len(symbols) == kind.size == len(notes):
        raise ValueError(
            f"marks: {at.size} samples, {len(symbols)} symbols, {kind.size} subtypes and {len(notes)} notes; "
            "give one of each per mark"
        )
    order = np.argsort(at, kind="stable")
    return Marks(at[order], tuple(str(symbols[i]) for i in order), kind[order], tuple(notes[i] for i in order))


def read_marks(record: Path | str, extension: str) -> Marks:
    """The marks of an annotation file, `record` without its suffix, such as mitdb/208 and "atr".

    Raises FileNotFoundError where there is none, DatasetError for one that is not an annotation file.
    """
    path = Path(f"{record}.{extension}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file; give a record that has one")
    found = annotation_file(Path(record), extension)
    return marks(found.sample, list(found.symbol), found.subtype, list(found.aux_note))


def write_marks(record: Path | str, extension: str, of: Marks, fs: float) -> None:
    """Write marks as a WFDB annotation file; one without marks is written too, as two zero bytes."""
    path = Path(f"{record}.{extension}")
    if len(of) == 0:
        path.write_bytes(b"\x00\x00")
        return
    symbols, notes = list(of.symbol), list(of.aux)
    folder = str(path.parent)
    wfdb.wrann(path.stem, extension, of.sample, symbols, of.subtype, aux_note=notes, fs=fs, write_dir=folder)


def samples_of(seconds: float, fs: float) -> int:
    """Seconds as samples, half a sample rounded up, as WFDB's strtim does (0.15 s at 250 Hz are 38)."""
    return int(seconds * fs + 0.5)
