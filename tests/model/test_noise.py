"""Noise is added at the ratio asked for."""

import numpy as np
import pytest

from model.noise import spoiler


@pytest.mark.parametrize("snr_db", [12.0, 0.0])
def test_noise_is_added_at_the_ratio_asked_for_whatever_the_rate_and_the_wander(snr_db: float) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (4, 20_000)).astype(np.float32)
    noise = np.repeat(noise, 5, axis=1)  # slow beside the rate, so that interpolation keeps its power
    fs = 360.0
    signal = np.sin(np.arange(36_000) * 2 * np.pi * 3 / fs)[None].repeat(2, 0).astype(np.float32)
    signal += np.array([[5.0], [-3.0]], np.float32)
    spoilt = spoiler(noise, snr_db, rng)(signal, fs)
    added = spoilt - signal
    ratio = 10 * np.log10(0.5 / added.var(1))
    np.testing.assert_allclose(ratio, snr_db, atol=1.0)
    assert not np.allclose(added[0], added[1])
