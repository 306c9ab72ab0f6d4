"""The classes that the model tells apart, in the order of its outputs."""

BEATS = ("N", "S", "V", "F", "Q")
RHYTHMS = ("N", "AF", "AFL", "SVT", "VT", "VF", "ASYS", "PACED", "NOISE", "OTHER")
ARRHYTHMIAS = ("N", "A", "O", "~")
"""Classes of the PhysioNet/CinC Challenge 2017: normal, atrial fibrillation, other, too noisy."""

SHOCKABLE = frozenset({"VT", "VF"})

AAMI = {
    **dict.fromkeys(["N", "L", "R", "B"], "N"),
    **dict.fromkeys(["A", "a", "J", "S"], "S"),
    **dict.fromkeys(["V", "E", "r"], "V"),
    "F": "F",
    **dict.fromkeys(["/", "f", "Q", "?"], "Q"),
}
"""WFDB beat symbols to the classes of ANSI/AAMI EC57, but for those on which the maps differ."""

ESCAPES = {"literature": dict.fromkeys(["e", "j", "n"], "N"), "bxb": dict.fromkeys(["e", "j", "n"], "S")}
"""Escape beats: counted as N in most published tables, as S by the WFDB program `bxb`."""

RHYTHM_OF_NOTE = {
    "(N": "N", "(NSR": "N", "(SBR": "N", "(SBRAD": "N", "(P": "PACED", "(PM": "PACED", "(AFIB": "AF", "(AF": "AF",
    "(AFL": "AFL", "(SVTA": "SVT", "(VT": "VT", "(HGEA": "OTHER", "(VF": "VF", "(VFIB": "VF", "(VFL": "VF",
    "(ASYS": "ASYS", "(NOISE": "NOISE",
    "(B": "OTHER", "(T": "OTHER", "(IVR": "OTHER", "(VER": "OTHER", "(NOD": "OTHER", "(AB": "OTHER", "(PREX": "N",
    "(BII": "OTHER", "(BI": "OTHER", "(BIII": "OTHER",
}  # fmt: skip
"""Rhythm-change notes of mitdb, vfdb and cudb to `RHYTHMS`. Ventricular flutter counts as VF;
bigeminy and trigeminy count as OTHER, as do idioventricular, nodal and blocked rhythms."""


def beat_class(symbol: str, escapes: str = "literature") -> str | None:
    """Class of `BEATS` of a WFDB symbol, None where the symbol marks no beat. `escapes` names the map of e, j and n."""
    return AAMI.get(symbol) or ESCAPES[escapes].get(symbol)


def rhythm_class(note: str) -> str | None:
    """Class of `RHYTHMS` of an auxiliary note such as ``(AFIB``, None where the note names no rhythm."""
    return RHYTHM_OF_NOTE.get(note.rstrip("\x00").strip())
