import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.pulse import DELAY, SIGNALS, PulseDetector, Pulses

FS = 250
PLETH, ABP = (SIGNALS.index(kind) for kind in ("pleth", "abp"))


def pleth(beats_s, seconds, height=1.0, noise=0.0, seed=0):
    """A pulse wave with a dicrotic one after each beat, as float32 (n,)."""
    t = np.arange(int(seconds * FS)) / FS
    x = np.random.default_rng(seed).normal(scale=noise, size=len(t))
    for beat in beats_s:
        x += height * (np.exp(-0.5 * ((t - beat) / 0.07) ** 2) + 0.4 * np.exp(-0.5 * ((t - beat - 0.3) / 0.08) ** 2))
    return x.astype(np.float32)


def found(signal, sizes=(75_000,)):
    """Pulse beats of a signal (n,), or of both (2, n), as row 1 of 3, in pushes of these sizes."""
    y = np.full((len(SIGNALS), signal.shape[-1]), np.nan, np.float32)
    y[: signal.ndim] = signal
    detector, row, parts, at = PulseDetector(3), np.array([1]), [], 0
    for size in [*sizes, *[sizes[-1]] * (y.shape[1] // sizes[-1])]:
        part = y[None, :, at : at + size]
        parts.append(detector.push(row, part, np.array([part.shape[2]])))
        at += size
    return Pulses(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def test_every_pulse_is_found_once_and_told_after_the_stated_delay():
    for rate in (30, 60, 100, 180, 220):
        beats = np.arange(1, 58, 60 / rate)
        pulses = found(pleth(beats, 60, noise=0.01))
        assert (pulses.decided - pulses.at == DELAY).all()
        after_learning = beats[beats > 10]
        nearest = np.abs(pulses.at[:, None] / FS - after_learning).min(0)
        assert nearest.max() < 0.1, rate
        assert abs(np.count_nonzero(pulses.at / FS > 9.9) - len(after_learning)) <= 1, rate


def test_a_steady_pulse_is_as_usual_whatever_its_unit():
    beats = np.arange(1, 58, 0.8)
    for gain in (0.01, 1.0, 80.0):
        pulses = found(gain * pleth(beats, 60))
        late = pulses.at > 10 * FS
        assert pulses.likeness[late].min() > 0.98
        assert 0.9 < pulses.ratio[late].min() <= pulses.ratio[late].max() < 1.1


def test_a_heart_that_stops_leaves_no_pulse_of_usual_height():
    signal = pleth(np.arange(1, 30, 0.8), 60, noise=0.01)
    pulses = found(signal)
    after = pulses.at > 31 * FS
    assert not (pulses.ratio[after] > 0.5).any()


def test_noise_alone_has_few_beats_that_look_like_beats():
    rng = np.random.default_rng(1)
    noise = np.convolve(rng.normal(size=60 * FS), np.hanning(40), "same").astype(np.float32)
    pulses = found(noise)
    assert np.mean((pulses.likeness > 0.9) & (pulses.ratio > 0.5)) < 0.3


def test_both_signals_are_looked_at_and_a_gap_starts_one_afresh():
    one, other = pleth(np.arange(1, 28, 0.8), 30), 90 + 40 * pleth(np.arange(1.1, 28, 0.8), 30)
    one[10 * FS : 12 * FS] = np.nan
    pulses = found(np.stack([one, other]))
    assert set(pulses.signal) == {PLETH, ABP}
    gap = (pulses.signal == PLETH) & (pulses.at > 10 * FS) & (pulses.at < 14 * FS)
    assert (pulses.ratio[gap] == 0).all()
    assert (pulses.ratio[(pulses.signal == ABP) & (pulses.at > 10 * FS)] > 0.9).all()


def test_a_flat_or_missing_signal_has_no_pulse():
    assert len(found(np.full(5000, 7.0, np.float32)).at) == 0
    assert len(found(np.full(5000, np.nan, np.float32)).at) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_pushes_of_any_size_find_the_same(sizes):
    signal = pleth(np.arange(1, 19, 0.7), 20, noise=0.05)
    signal[9 * FS : 9 * FS + 40] = np.nan
    for one, other in zip(found(signal), found(signal, sizes), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_state_goes_on_where_it_was():
    signal = pleth(np.arange(1, 19, 0.7), 20, noise=0.05)
    y = np.full((1, len(SIGNALS), len(signal)), np.nan, np.float32)
    y[0, PLETH] = signal
    row, half = np.array([0]), 2500
    one = PulseDetector(1)
    one.push(row, y[:, :, :half], np.array([half]))
    other = PulseDetector(1)
    other.load_state_dict(one.state_dict())
    rest = y[:, :, half:]
    for a, b in zip(*(d.push(row, rest, np.array([rest.shape[2]])) for d in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)
