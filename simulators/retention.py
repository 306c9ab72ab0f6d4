"""What a source keeps of one bed: frames in order, which are safe at the shard, and which are to be sent."""

from stream.wire import End, Lost, Truth, Waveform, encode

OVERHEAD_BYTES = 160  # of a retained frame, in memory
TAIL_NS = 2_000_000_000  # how long the last packet of a bed may stay unconfirmed before it goes out again


class Entry:
    """A frame that is kept: samples [first, end) of an epoch; End and Truth hold none.
    `age_s`: signal of the bed that had been put in when it ended; `put_ns`: monotonic."""

    __slots__ = ("age_s", "end", "epoch", "first", "frame", "kind", "put_ns", "sent")

    def __init__(self, kind: type, epoch: str, first: int, end: int, frame: bytes, put_ns: int, age_s: float) -> None:
        self.kind, self.epoch, self.first, self.end = kind, epoch, first, end
        self.frame, self.put_ns, self.age_s = frame, put_ns, age_s
        self.sent = False


class Retention:
    """What is kept of one bed. `entries[:durable]` is safe, `entries[cursor:]` is to be sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.durable = 0
        self.cursor = 0
        self.end = 0
        self.signal_s = 0.0
        self.n_bytes = 0
        self.sent_ns = 0
        self.tail_ns = TAIL_NS
        self.n_packets = self.n_samples = self.n_sent = self.n_resent = self.n_lost = 0

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.n_bytes += len(entry.frame) + OVERHEAD_BYTES
        self.tail_ns = TAIL_NS

    def merge(self, found: list[Entry], order: dict[str, int], durable: dict[str, int]) -> None:
        """Put entries that were sent in their place. `order`: of epochs; `durable`: samples of each that are."""
        unsent = len(self.entries) - self.cursor
        safe = {id(entry) for entry in self.entries[: self.durable]}
        rank: dict[type, int] = {Waveform: 0, Lost: 0, Truth: 1, End: 2}
        self.entries = sorted(
            [*self.entries, *found], key=lambda entry: (order.get(entry.epoch, 0), entry.end, rank[entry.kind])
        )
        self.n_bytes += sum(len(entry.frame) + OVERHEAD_BYTES for entry in found)
        self.cursor = len(self.entries) - unsent
        known = (id(e) in safe or (e.kind is Waveform and e.end <= durable.get(e.epoch, 0)) for e in self.entries)
        self.durable = next((i for i, is_safe in enumerate(known) if not is_safe), len(self.entries))

    def safe(self, epoch: str, sample: int) -> None:
        """All of earlier epochs, and this one up to `sample`, is durable."""
        seen = False
        for i in range(self.durable, len(self.entries)):
            entry = self.entries[i]
            if entry.epoch == epoch and entry.end <= sample:
                self.durable = i + 1
                seen = True
            elif entry.epoch == epoch or seen:
                if entry.epoch == epoch and not seen:
                    self.durable = max(self.durable, i)
                return

    def spans(self, epoch: str) -> list[tuple[int, int]]:
        """(end, first) of all that is kept, or was told to be lost, of the samples of an epoch, in their order."""
        return [(entry.end, entry.first) for entry in self.entries if entry.epoch == epoch and entry.end > entry.first]

    def find(self, epoch: str, sample: int) -> int | None:
        """Where the epoch goes on from `sample`: an index, the length where it is not there yet, or None
        for an epoch that is not known (any more)."""
        found = None
        for i in range(len(self.entries) - 1, -1, -1):
            entry = self.entries[i]
            if entry.epoch == epoch:
                if entry.end > sample or (entry.kind is End and entry.end >= sample):
                    found = i
                else:
                    return i + 1 if found is None else found
            elif found is not None:
                return found
        return found

    def trim(self, retain_s: float, share_bytes: int) -> None:
        """Forget what is durable, sent, and older than `retain_s` of signal or over the share."""
        n = 0
        for entry in self.entries[: min(self.durable, self.cursor)]:
            if self.signal_s - entry.age_s < retain_s and self.n_bytes <= share_bytes:
                break
            self.n_bytes -= len(entry.frame) + OVERHEAD_BYTES
            n += 1
        self._drop_head(n)

    def squeeze(self, share_bytes: int) -> bool:
        """Forget the oldest that was sent though it is not durable, to keep to the share. Returns whether
        more has to go, which was not sent yet."""
        n = 0
        while n < self.cursor and self.n_bytes > share_bytes:
            self.n_bytes -= len(self.entries[n].frame) + OVERHEAD_BYTES
            n += 1
        self._drop_head(n)
        return self.n_bytes > share_bytes

    def give_up(self, n: int, put_ns: int, cause: str) -> None:
        """Put a `Lost` in the place of each run of the next `n` entries to be sent."""
        old = self.entries[self.cursor : self.cursor + n]
        new: list[Entry] = []
        for entry in old:
            self.n_bytes -= len(entry.frame) + OVERHEAD_BYTES
            if entry.kind is Truth:
                continue
            if entry.kind is End:
                new.append(entry)
                continue
            if entry.kind is Waveform:
                self.n_lost += entry.end - entry.first
            first = entry.first
            if new and new[-1].kind is Lost and (new[-1].epoch, new[-1].end) == (entry.epoch, entry.first):
                first = new.pop().first
            lost = Lost(bed=self.name, epoch=entry.epoch, first=first, n=entry.end - first, cause=cause)
            new.append(Entry(Lost, entry.epoch, first, entry.end, encode(lost), put_ns, entry.age_s))
        self.entries[self.cursor : self.cursor + n] = new
        self.durable = min(self.durable, self.cursor)
        self.n_bytes += sum(len(entry.frame) + OVERHEAD_BYTES for entry in new)

    def _drop_head(self, n: int) -> None:
        if n:
            del self.entries[:n]
            self.durable = max(0, self.durable - n)
            self.cursor -= n
