"""One annotator's beats in the order of bxb, read one ahead (its `getref` and `gettest`), and what its symbols mean."""

from model.ec57.marks import SHUTDOWN_BITS, Marks

QRS_SYMBOLS = frozenset("NLRaVFJASEj/QBenfr?!")
NEVER = 2**62
NONE = -1
_BXB = {
    **dict.fromkeys("NLRB", "N"),
    **dict.fromkeys("JASajen", "S"),
    **dict.fromkeys("VrE", "V"),
    "F": "F",
    **dict.fromkeys("Q/f?", "Q"),
}
LABEL_MAPS: dict[str, dict[str, str]] = {"bxb": _BXB, "literature": {**_BXB, **dict.fromkeys("ejn", "N")}}


class BeatReader:
    """One annotator's beats, read one ahead, with the shutdown and VF periods met on the way.

    `at` and `label`: the current beat; `next_at`, `next_label`: the one after it; `rr`: the interval that ends at the
    current beat, 0 where it is not valid. A time of `NEVER` says that there are no more.
    """

    def __init__(self, of: Marks, labels: dict[str, str], window: int, open_noise_ends: int | None) -> None:
        self._samples: list[int] = of.sample.tolist()
        self._symbols = of.symbol
        self._shut = ((of.subtype & SHUTDOWN_BITS) == SHUTDOWN_BITS).tolist()
        self._labels = labels
        self._window = window
        self._i = 0
        self._noise: list[tuple[int, int]] = [(NONE, NONE), (NONE, NONE)]  # the latest first
        self._vf: list[tuple[int, int]] = [(NONE, NONE), (NONE, NONE)]
        self._shutdown = 0
        self._open_shutdown: int | None = None
        self.at = self.next_at = 0
        self.label = self.next_label = ""
        self.rr = 0
        self._open_noise_ends = open_noise_ends

    def advance(self) -> None:
        """Step to the next beat."""
        before = self.at
        self.at, self.label = self.next_at, self.next_label
        broken = any(before <= on < self.at for on, _ in (*self._vf, *self._noise))
        self.rr = 0 if before == 0 or self.at == NEVER or broken else self.at - before
        self._look_ahead()

    def pseudo(self, at: int, skip_vf: bool) -> str:
        """What stands for the beat that this annotator does not have at `at`: O, X, or `*` for not counted."""
        (on, off), (before_on, before_off) = self._vf
        if skip_vf and _inside(at, on, off, before_on, before_off):
            return "*"
        (on, off), (before_on, before_off) = self._noise
        return "X" if _inside(at, on, off, before_on, before_off) else "O"

    def shutdown(self, end: int | None) -> int:
        """Samples declared unreadable; a shutdown that is never ended lasts to the end of the record."""
        if self._open_shutdown is not None and end is not None:
            return self._shutdown + end - self._open_shutdown
        return self._shutdown

    def _look_ahead(self) -> None:
        n = len(self._symbols)
        while self._i < n:
            i = self._i
            self._i += 1
            symbol = self._symbols[i]
            if symbol in QRS_SYMBOLS:
                # A symbol that is a QRS to WFDB and no beat to the standard (`!`) is an O, and pairs as one.
                self.next_at, self.next_label = self._samples[i], self._labels.get(symbol, "O")
                return
            if symbol == "~" and self._shut[i]:
                if not self._begin_shutdown(i):
                    break
            elif symbol == "[" and not self._skip_vf(i):
                break
        self.next_at, self.next_label = NEVER, "*"

    def _begin_shutdown(self, i: int) -> bool:
        """Take in a shutdown that begins at mark i; False where the file ends in it."""
        if self._i >= len(self._symbols):
            # bxb leaves a test annotator the end of the shutdown before this one, which is none at the first.
            off = self._noise[0][1] if self._open_noise_ends is None else self._open_noise_ends
            self._noise = [(self._samples[i], off), self._noise[0]]
            self._open_shutdown = self._samples[i]
            return False
        after = self._samples[self._i]
        if self._symbols[self._i] == "~" and not self._shut[self._i]:
            on, off = self._samples[i], after
            self._i += 1
        else:
            # A lone mark, as the AHA database has it: from the beat (or VF) before it to the mark after it.
            vf_off = self._vf[0][1]
            off = after - self._window
            on = min((vf_off if vf_off > self.at else self.at) + self._window, off)
        self._noise = [(on, off), self._noise[0]]
        self._shutdown += off - on
        return True

    def _skip_vf(self, i: int) -> bool:
        """Pass over all marks up to the end of VF; False where the file ends in it."""
        # Until its end is read, VF keeps the end of the one before it, as in bxb.
        self._vf = [(self._samples[i], self._vf[0][1]), self._vf[0]]
        while self._i < len(self._symbols):
            j = self._i
            self._i += 1
            if self._symbols[j] == "]":
                self._vf[0] = (self._samples[i], self._samples[j])
                return True
        return False


def _inside(at: int, on: int, off: int, before_on: int, before_off: int) -> bool:
    latest = on != NONE and on <= at and (at <= off or off == NONE)
    return latest or (before_on != NONE and before_on <= at <= before_off)
