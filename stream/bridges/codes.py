"""Codes of other nomenclatures for our alarms: IEEE 11073-10101 (MDC), SNOMED CT, LOINC, units.

The MDC code of an alarm is in the table of `stream.alarms.conditions`, and comes with each event. The form
`0^MDCX_…^MDC` stands for a term that the standard lacks, or that we have not found; a bridge may map any
code to another term by its setting `codes`. SNOMED codes are those seen in public value sets; alarms
that are not named have none. Check them in NIST RTMMS and SNOMED before any claim of conformance.
"""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta

from stream.alarms.conditions import CONDITIONS
from stream.bridges.bridge import MEANINGS, BusError, Rejected
from stream.wire import AlertEvent

_TERM = r"^([0-9]{1,10})\^([A-Za-z0-9_]{1,100})\^([A-Za-z0-9]{1,20})$"
MEANINGS[_TERM] = "like 199832^MDC_EVT_ECG_V_TACHY^MDC"
MdcText = Annotated[str, Meta(pattern=_TERM)]


class Code(NamedTuple):
    """A term: its number, its reference id, and the system, `MDC` as a rule."""

    number: str
    refid: str
    system: str = "MDC"

    @property
    def pending(self) -> bool:
        return self.number == "0"


HR = Code("147842", "MDC_ECG_HEART_RATE")
PVC_RATE = Code("148066", "MDC_ECG_V_P_C_RATE")
RHYTHM = Code("184327", "MDC_ECG_STAT_RHY")
BPM = Code("264864", "MDC_DIM_BEAT_PER_MIN")
ALARM = Code("196616", "MDC_EVT_ALARM")
ALIVE = Code("258047", "MDC_EVT_ACTIVE")
MDS = Code("69965", "MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS")
VMD = Code("69798", "MDC_DEV_ECG_VMD")
CHANNEL = Code("70739", "MDC_DEV_CARD_RATE_CHAN")
LOINC_HR = "8867-4"

SNOMED = {
    "ASYSTOLE": ("397829000", "Asystole"),
    "VFIB": ("71908006", "Ventricular fibrillation"),
    "VTACH": ("25569003", "Ventricular tachycardia"),
    "NSVT": ("444658006", "Nonsustained ventricular tachycardia"),
    "X_TACHY": ("3424008", "Tachycardia"),
    "X_BRADY": ("48867003", "Bradycardia"),
    "AFIB": ("49436004", "Atrial fibrillation"),
    "NOISY_ECG": ("251143007", "Artifact"),
}


def parse(text: str) -> Code | None:
    """The code that `number^REFID^SYSTEM` stands for; None where it is none."""
    match = re.fullmatch(_TERM, text)
    return Code(*match.groups()) if match else None


class Codes:
    """The mapping of one bridge. `changes`: by our code, the term to send in place of the table's.
    `pending`: whether `0^MDCX_…` may go out; where not, every alarm needs a term.

    Raises BusError for a code that there is not, and for each that is left without a term."""

    def __init__(self, changes: Mapping[str, str], *, pending: bool) -> None:
        unknown = sorted(set(changes) - set(CONDITIONS))
        if unknown:
            raise BusError(f"codes.{unknown[0]}: no such alarm; known are {', '.join(CONDITIONS)}")
        self._changes = {code: parse(text) for code, text in changes.items()}
        self._pending = pending
        bare = [code for code, row in CONDITIONS.items() if self._refused(self._changes.get(code) or parse(row.mdc))]
        if bare:
            raise BusError(
                f"codes: no term of the standard for {', '.join(bare)}; map each, as codes.{bare[0]} = "
                f'"NUMBER^REFID^SYSTEM", or allow pending_codes'
            )

    def of(self, event: AlertEvent) -> Code:
        """The term for an event. Raises Rejected where it has none that may go out."""
        code = self._changes.get(event.code) or parse(event.mdc)
        if code is None or self._refused(code):
            raise Rejected(f"code {event.code}: mdc {event.mdc!r} is no term that this bus takes; map it in `codes`")
        return code

    def _refused(self, code: Code | None) -> bool:
        return code is None or (code.pending and not self._pending)
