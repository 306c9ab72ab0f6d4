from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets import physical, read
from simulators.patients import RAIL, Patient
from simulators.rhythms import RHYTHMS, Episode
from simulators.ward import PRESETS, default_ward, patient_of

FS = 250


def beats_of(patient: Patient, start_s: float, end_s: float) -> tuple[np.ndarray, list[str]]:
    truth = patient.truth(round(start_s * patient.fs), round((end_s - start_s) * patient.fs))
    rows = [i for i, symbol in enumerate(truth.symbols) if symbol in "NVA"]
    return truth.sample[rows] / patient.fs, [truth.symbols[i] for i in rows]


def notes_of(patient: Patient) -> list[tuple[float, str, str]]:
    truth = patient.truth(0, patient.n_script)
    rows = zip(truth.sample / patient.fs, truth.symbols, truth.aux, strict=True)
    return [(at, symbol, aux) for at, symbol, aux in rows if symbol not in "NVA"]


@settings(max_examples=40, deadline=None)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    seed=st.integers(0, 5),
    cuts=st.lists(st.integers(1, 9000), min_size=1, max_size=9),
)
def test_a_patient_is_the_same_however_the_stream_is_cut(preset: str, seed: int, cuts: list[int]) -> None:
    patient = Patient("bed", PRESETS[preset], seed=seed)
    first = patient.n_script - 4500  # over the seam where the script starts again
    whole = patient.render(first, sum(cuts))
    again = Patient("bed", PRESETS[preset], seed=seed)
    parts, truths, at = [], [], first
    for n in cuts:
        parts.append(again.render(at, n))
        truths += again.truth(at, n).sample.tolist()
        at += n
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert truths == patient.truth(first, sum(cuts)).sample.tolist()


def test_another_seed_is_another_patient() -> None:
    one, other = (Patient("bed", [("sinus", 30)], seed=seed).render(0, 2500) for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0, 500.0])
def test_r_peaks_are_where_the_truth_says(fs: float) -> None:
    patient = Patient("bed", [("sinus", 60, {"pvc_per_min": 4})], seed=3, fs=fs, noise_mv=0.0)
    wave = patient.render(0, round(60 * fs))[0]
    truth = patient.truth(round(fs), round(58 * fs))
    reach = round(0.06 * fs)
    for at, symbol in zip(truth.sample, truth.symbols, strict=True):
        if symbol in "NV":
            assert abs(int(np.argmax(wave[at - reach : at + reach])) - reach) <= 1


def test_amplitude_and_noise_are_those_of_a_patient() -> None:
    for patient in default_ward(30, seed=4):
        if patient.script[0].rhythm != "sinus":
            continue
        wave = patient.render(0, 8 * FS)[:2] / 200
        assert 0.7 < np.ptp(wave[0]) < 3.5
        assert 0.7 < np.ptp(wave[1]) < 4.5


@pytest.mark.parametrize(
    ("rhythm", "low", "high"), [("sinus", 60, 90), ("brady", 34, 38), ("tachy", 131, 139), ("svt", 183, 187)]
)
def test_regular_rhythms_keep_their_rate(rhythm: str, low: float, high: float) -> None:
    at, symbols = beats_of(Patient("bed", [(rhythm, 120)], seed=5), 0, 120)
    intervals = np.diff(at)
    assert low < 60 / intervals.mean() < high
    assert intervals.std() < 0.05 * intervals.mean()
    assert set(symbols) == {"N"}


def test_a_regular_script_starts_again_in_step() -> None:
    at, _ = beats_of(Patient("bed", [("sinus", 60)], seed=6), 50, 130)
    assert np.diff(at).max() < 1.15 * np.diff(at).mean()
    assert np.diff(at).min() > 0.85 * np.diff(at).mean()


def test_atrial_fibrillation_is_irregular_without_p_waves() -> None:
    patient = Patient("bed", [("af", 120, {"hr": 90})], seed=7, noise_mv=0.0)
    at, _ = beats_of(patient, 0, 120)
    intervals = np.diff(at)
    assert 80 < 60 / intervals.mean() < 100
    assert intervals.std() > 0.15 * intervals.mean()
    assert abs(np.corrcoef(intervals[1:], intervals[:-1])[0, 1]) < 0.3
    sinus = Patient("bed", [("sinus", 120)], seed=7, noise_mv=0.0)
    assert p_wave(sinus) > 0.08
    assert abs(p_wave(patient)) < 0.04


def p_wave(patient: Patient) -> float:
    """Mean of lead II 170 ms before the R peaks over that of 90 ms before, in mV."""
    wave = patient.render(0, 110 * FS)[0] / 200
    peaks = [round(at * FS) for at in beats_of(patient, 2, 108)[0]]
    return float(np.mean([wave[p - 42] - wave[p - 21] for p in peaks]))


def test_ectopy_follows_its_pattern() -> None:
    for rhythm, pattern in (("bigeminy", "NV"), ("trigeminy", "NNV"), ("couplets", "NNNNVV")):
        at, symbols = beats_of(Patient("bed", [(rhythm, 60)], seed=8), 2, 58)
        text = "".join(symbols)
        assert pattern * 4 in text
        early = [b - a for a, b, s in zip(at, at[1:], symbols[1:], strict=False) if s == "V"]
        assert max(early) < 0.8 * np.median(np.diff(at)[[s == "N" for s in symbols[1:]]])


def test_a_run_has_its_beats_at_its_rate() -> None:
    at, symbols = beats_of(Patient("bed", [("runs", 60, {"beats": 4, "rate": 150})], seed=9), 0, 60)
    text = "".join(symbols)
    assert "NVVVVN" in text
    assert "VVVVV" not in text
    first = text.index("VVVV")
    np.testing.assert_allclose(np.diff(at[first : first + 4]), 0.4, rtol=0.1)


def test_vt_vf_asystole_and_pause_are_in_truth_and_signal() -> None:
    script = [
        ("sinus", 20),
        ("vt", 10),
        ("sinus", 10),
        ("vf", 10),
        ("sinus", 10),
        ("asystole", 10),
        ("sinus", 10),
        ("pause", 10),
        ("sinus", 20),
    ]
    patient = Patient("bed", script, seed=10)
    vt, symbols = beats_of(patient, 20, 30)
    assert set(symbols) == {"V"}
    assert 60 / np.diff(vt).mean() == pytest.approx(170, rel=0.03)
    assert beats_of(patient, 40, 50)[1] == beats_of(patient, 60, 70)[1] == []
    assert np.diff(beats_of(patient, 80, 90)[0]).max() == pytest.approx(3.0, abs=0.02)
    notes = notes_of(patient)
    assert [(aux, round(at)) for at, symbol, aux in notes if symbol == "+"] == [
        ("(N", 0), ("(VT", 20), ("(N", 30), ("(VF", 40), ("(N", 50), ("(ASYS", 60), ("(N", 70)
    ]  # fmt: skip
    assert [(at, symbol) for at, symbol, _ in notes if symbol in "[]"] == [(40.0, "["), (50.0, "]")]
    wave = patient.render(0, 110 * FS)[0] / 200
    assert wave[42 * FS : 49 * FS].std() > 0.3
    spectrum = np.abs(np.fft.rfft(wave[41 * FS : 49 * FS] - wave[41 * FS : 49 * FS].mean()))
    assert 3 < spectrum.argmax() / 8 < 7  # Hz
    flat = wave[61 * FS : 69 * FS]
    assert max(np.ptp(part) for part in flat.reshape(-1, FS // 5)) < 0.15  # below the floor of a QRS


def test_a_lead_that_is_off_is_railed_told_and_without_truth() -> None:
    patient = Patient(
        "bed", [("sinus", 20), ("lead_off", 10), ("sinus", 20), ("lead_off", 10, {"lead": 1}), ("sinus", 20)], seed=11
    )
    samples = patient.render(0, 80 * FS)
    assert (samples[:, 20 * FS : 30 * FS] == RAIL).all()
    assert (samples[1, 50 * FS : 60 * FS] == RAIL).all()
    assert (samples[0, 50 * FS : 60 * FS] != RAIL).any()
    assert patient.off_spans(0, 80 * FS) == [(20 * FS, 30 * FS, 0b11), (50 * FS, 60 * FS, 0b10)]
    assert patient.off_spans(25 * FS, 30 * FS) == [(25 * FS, 30 * FS, 0b11), (50 * FS, 55 * FS, 0b10)]
    assert beats_of(patient, 20, 30)[1] == []
    assert beats_of(patient, 50, 60)[1] != []
    truth = patient.truth(0, 80 * FS)
    marks = [(int(s), int(n)) for s, c, n in zip(truth.sample, truth.symbols, truth.subtype, strict=True) if c == "~"]
    assert marks == [(20 * FS, -1), (30 * FS, 0)]


def test_noise_hides_the_beats() -> None:
    patient = Patient("bed", [("sinus", 20), ("noise", 10), ("sinus", 20)], seed=12)
    wave = patient.render(0, 50 * FS)[0] / 200
    assert wave[21 * FS : 29 * FS].std() > 3 * wave[5 * FS : 15 * FS].std()
    assert beats_of(patient, 20, 30)[1] == []


def test_a_counter_tells_which_samples_came() -> None:
    patient = Patient("bed", [("sinus", 30)], counter=True)
    samples = patient.render(32_000, 2000)[2]
    np.testing.assert_array_equal(samples, np.arange(32_000, 34_000) % 32_768)
    assert (patient.signals[2].name, patient.signals[2].kind) == ("N", "counter")


def test_a_written_patient_is_read_back_with_its_truth(tmp_path: Path) -> None:
    patient = Patient("p1", PRESETS["pvc"], seed=13)
    record = read(patient.write(tmp_path, 60))
    np.testing.assert_array_equal(record.digital, patient.render(0, 60 * FS))
    truth, notes = patient.truth(0, 60 * FS), record.annotations
    assert notes is not None
    assert (notes.sample.tolist(), notes.symbols, notes.aux) == (truth.sample.tolist(), truth.symbols, truth.aux)
    assert record.comments == ("simulated patient, seed 13",)
    assert physical(record).dtype == np.float32


def test_the_default_ward_shows_its_events_within_half_a_minute() -> None:
    ward = default_ward(8, seed=1)
    assert [patient.name for patient in ward] == [f"bed{i}" for i in range(1, 9)]
    events = {episode.rhythm for patient in ward for episode in patient.script if _start(patient, episode) < 30}
    assert {"vf", "couplets", "vt", "af", "asystole", "lead_off", "brady", "tachy", "sinus"} <= events
    assert len(default_ward(100)) == 100
    twice = default_ward(20, seed=2)[15], default_ward(16, seed=2)[15]
    np.testing.assert_array_equal(*(patient.render(0, 1000) for patient in twice))


def _start(patient: Patient, wanted: Episode) -> float:
    return sum(episode.duration_s for episode in patient.script[: patient.script.index(wanted)])


@pytest.mark.parametrize("rhythm", sorted(RHYTHMS))
def test_every_rhythm_has_a_source_name(rhythm: str) -> None:
    patient = patient_of(f"sim:{rhythm}+sinus,seed=3,fs=200,noise=0.02", "bed")
    assert patient.fs == 200
    assert patient.script[0].rhythm == rhythm
    assert patient.render(0, 2000).shape == (2, 2000)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("sim:vfib", r"no simulated patient 'vfib'; choose among default, vf"),
        ("sim:", r"no simulated patient ''"),
        ("sim:vf,speed=2", r"no option 'speed'; choose among seed"),
        ("sim:vf,seed=x", r"seed is 'x'; give a number"),
        ("sim:vf,fs=10", r"fs: 10.0 Hz; give 50 to 2000"),
        ("sim:sinus,hr=900", r"hr: 900"),
        ("sim:sinus,noise=nan", r"noise"),
        ("sim:sinus,seed=-1", r"seed"),
    ],
)
def test_a_wrong_simulated_source_is_refused_by_name(source: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        patient_of(source, "bed")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ([], "script"),
        ([("sinsu", 10)], "'sinsu' is not known"),
        ([("sinus", 0)], "duration_s: 0"),
        ([("vt", 10, {"rate": 0})], "rate: 0 of vt; give 10 to 400"),
        ([("vt", 10, {"speed": 3})], "speed: no parameter of vt; it has rate, form"),
    ],
)
def test_a_wrong_script_is_refused_by_name(script: list, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=says):
        Patient("bed", script)
