"""A bed's ECG in a line of a terminal: braille dots, two columns of time and four rows of amplitude a letter."""

from collections import deque

import numpy as np
import numpy.typing as npt

from stream.wire import MISSING, Waves

SPAN_S = 3.0
LEAST_MV = 1.2  # of the whole height: noise is not blown up
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille letter, left and right, from the top


class WaveLine:
    """The first ECG lead of a bed over the last seconds."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, npt.NDArray[np.float32]]] = deque()
        self._epoch = ""
        self._rate = 250.0
        self.head = 0

    def take(self, waves: Waves) -> None:
        """Samples that came; of a bed without ECG, its first signal."""
        if waves.epoch != self._epoch:
            self._parts.clear()
        row = next((i for i, signal in enumerate(waves.signals) if signal.kind == "ecg"), 0)
        digital, signal = waves.samples()[row], waves.signals[row]
        mv = np.where(digital == MISSING, np.nan, (digital - signal.baseline) / signal.gain).astype(np.float32)
        self._parts.append((waves.first, mv))
        self._epoch, self._rate, self.head = waves.epoch, waves.rate, waves.first + waves.n
        while self._parts and self._parts[0][0] + len(self._parts[0][1]) <= self.head - SPAN_S * self._rate:
            self._parts.popleft()

    def text(self, width: int) -> str:
        """`width` letters, the newest at the right; blank where there is no sample."""
        n = round(SPAN_S * self._rate)
        x = np.full(n, np.nan, np.float32)
        for first, part in self._parts:
            at = first - (self.head - n)
            low, high = max(0, at), min(n, at + len(part))
            x[low:high] = part[low - at : high - at]
        known = x[~np.isnan(x)]
        if not len(known):
            return " " * width
        middle, span = (float(known.max()) + float(known.min())) / 2, max(float(np.ptp(known)), LEAST_MV)
        columns = [part[~np.isnan(part)] for part in np.array_split(x, 2 * width)]
        letters = []
        for pair in zip(columns[::2], columns[1::2], strict=True):
            dots = 0
            for side, part in zip(_DOTS, pair, strict=True):
                if len(part):
                    levels = [round(3 * (0.5 - (float(v) - middle) / span)) for v in (part.max(), part.min())]
                    for level in range(max(0, levels[0]), min(3, levels[1]) + 1):
                        dots |= side[level]
            letters.append(chr(0x2800 + dots) if dots else " ")
        return "".join(letters)
