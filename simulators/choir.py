"""Plays that go side by side: live beds of one packet length and rate, whose packets are the rows of arrays.

A packet that is cut, stamped and kept by itself costs more than its samples. Here a bed is asked for the signal of a
few seconds at once, and each tick takes one packet of every bed in one array call. What is not plain, such as a lead
that is off, a fault, or the end of a recording, a bed plays by itself: it leaves, and joins again later.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simulators.ledger import Ledger
from simulators.plays import Play
from stream.wire import Truth

FEWEST = 8  # plays of a lane that are worth it


class Key(NamedTuple):
    """What plays of one choir share: samples of a packet, signals, the packet's length and when in it they are due."""

    n: int
    n_signals: int
    packet_s: float
    phase_us: int


class Tick(NamedTuple):
    """One packet of each bed: `handles`, `seq`, `first` (k,) int64, `data` (k, signals, n) int16."""

    handles: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    data: npt.NDArray[np.int16]


def key_of(play: Play) -> Key | None:
    """The choir that a play may join now, None where it may join none."""
    replay = play.replay
    if not replay.even:
        return None
    phase = play.due_s % replay.packet_s
    n = round(replay.packet_s * replay.feed.fs)
    return Key(n, len(replay.feed.signals), replay.packet_s, round(1e6 * phase) % round(1e6 * replay.packet_s))


class Choir:
    """The plays of one key. `due_s`: when their next packets are due."""

    def __init__(self, key: Key, due_s: float) -> None:
        self.key, self.due_s = key, due_s
        self.plays: list[Play] = []
        # Of each play: its handle, packets of the stretch at hand that went and that there are; then its account before
        # them: seq, samples of the epoch, of all; its place in the ledger and its epoch's number there.
        self._columns = np.zeros((8, 0), np.int64)
        self._x = np.zeros((0, key.n_signals, 1, key.n), np.int16)  # a stretch of each, packet by packet
        self._order = np.zeros(0, np.int64)  # of rising handles

    def join(self, play: Play, handle: int) -> bool:
        """Take a play in whose next packet is due with the others'. False where what comes next is not plain."""
        stretch = play.replay.stretch()
        if stretch is None:
            return False
        row = len(self.plays)
        self.plays.append(play)
        if row == len(self._x):
            self._grow(2 * row + 8, self._x.shape[2])
        self._columns[:, row] = handle, 0, 0, 0, 0, 0, play.index, 0
        self._lay(row, stretch)
        self._order = np.zeros(0, np.int64)
        return True

    def tick(self, ledger: Ledger | None) -> Tick:
        """One packet of each play; the ledger knows it first."""
        k = len(self.plays)
        if len(self._order) != k:
            self._order = np.argsort(self._columns[_HANDLE, :k])
        handle, at, _, seq, sent, total, index, epochs = self._columns[:, self._order]
        data = self._x[self._order, :, at]
        now = sent + at * self.key.n
        tick = Tick(handle, seq + at, now, data)
        if ledger is not None:
            ledger.write_all(index, epochs, now + self.key.n, total + (at + 1) * self.key.n)
        self._columns[_AT, :k] += 1
        self.due_s = self.plays[0].due_s + int(self._columns[_AT, 0]) * self.key.packet_s
        return tick

    def turn(self) -> tuple[list[Play], list[Truth]]:
        """Have the next stretch at hand where one is used up: the plays that leave, and what truth there was."""
        gone: list[Play] = []
        truths: list[Truth] = []
        k = len(self.plays)
        for row in np.flatnonzero(self._columns[_AT, :k] == self._columns[_LENGTH, :k]).tolist():
            play = self.plays[row]
            truths += self._account(row)
            stretch = play.replay.stretch()
            if stretch is None:
                gone.append(play)
            else:
                self._lay(row, stretch)
        for play in gone:
            self._drop(self.plays.index(play))
        return gone, truths

    def leave(self, play: Play) -> list[Truth]:
        """Let a play go before its next packet."""
        row = self.plays.index(play)
        truths = self._account(row)
        self._drop(row)
        return truths

    def disband(self) -> tuple[list[Play], list[Truth]]:
        """Let all go."""
        truths = self.settle()
        plays, self.plays = self.plays, []
        return plays, truths

    @property
    def underway(self) -> int:
        """Samples that went and are not in the accounts of their plays yet: to bring those up to date costs more."""
        return int(self._columns[_AT, : len(self.plays)].sum()) * self.key.n

    def settle(self) -> list[Truth]:
        """Bring the accounts of all plays up to date."""
        return [truth for row in range(len(self.plays)) for truth in self._account(row)]

    def _account(self, row: int) -> list[Truth]:
        """Enter in the account of a play what it has sent of its stretch."""
        at, length = int(self._columns[_AT, row]), int(self._columns[_LENGTH, row])
        truths = self.plays[row].went(at)
        self._x[row, :, : length - at] = self._x[row, :, at:length].copy()
        self._begin(row, length - at)
        return truths

    def _lay(self, row: int, stretch: npt.NDArray[np.int16]) -> None:
        length = stretch.shape[1] // self.key.n
        if length > self._x.shape[2]:
            self._grow(len(self._x), length)
        self._x[row, :, :length] = stretch.reshape(self.key.n_signals, length, self.key.n)
        self._begin(row, length)

    def _begin(self, row: int, length: int) -> None:
        play = self.plays[row]
        self._columns[_AT:_INDEX, row] = 0, length, play.replay.seq, play.replay.sent, play.n_samples
        self._columns[_EPOCHS, row] = play.n_epochs

    def _grow(self, n_rows: int, length: int) -> None:
        x = np.zeros((n_rows, self.key.n_signals, length, self.key.n), np.int16)
        x[: len(self._x), :, : self._x.shape[2]] = self._x
        columns = np.zeros((8, n_rows), np.int64)
        columns[:, : self._columns.shape[1]] = self._columns
        self._x, self._columns = x, columns

    def _drop(self, row: int) -> None:
        last = len(self.plays) - 1
        self.plays[row] = self.plays[last]
        self.plays.pop()
        self._columns[:, row] = self._columns[:, last]
        self._x[row] = self._x[last]
        self._order = np.zeros(0, np.int64)


_HANDLE, _AT, _LENGTH, _SEQ, _SENT, _TOTAL, _INDEX, _EPOCHS = range(8)
