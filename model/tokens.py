"""Tokens of all beats and hops of a pool, computed once, from which windows are put together."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from model.ecg_moe import EcgMoe
from model.labels import BEATS
from model.pool import Pool
from model.segments import TOKEN_BEATS, TOKEN_HOPS, Int
from model.sequences import Sequences
from model.sizes import Sizes

Windows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""hop_tokens, hop_mask, beat_tokens, beat_features, beat_age, beat_mask of `EcgMoe.windows`."""


@dataclass(slots=True)
class Tokens:
    """float32, one row per hop or beat of the pool (zeros where its record was left out) and a last row for none."""

    hop: Tensor
    beat: Tensor
    features: Tensor
    probs: Tensor
    gates: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: EcgMoe, pool: Pool, records: Int, device: str) -> "Tokens":
        """Compute the tokens of these records."""
        model.eval()
        size = model.sizes
        n_hops, n_beats = pool.of_hop.size + 1, pool.of_beat.size + 1
        hop, beat = torch.zeros(n_hops, size.token, device=device), torch.zeros(n_beats, size.token, device=device)
        features = torch.zeros(n_beats, size.window_features, device=device)
        features[:-1] = torch.from_numpy(pool.beat_features[:, : size.window_features]).to(device)
        probs, gates = (
            torch.zeros(n_beats, len(BEATS), device=device),
            torch.zeros(n_beats, len(size.kernels), device=device),
        )
        hops, beats = np.flatnonzero(np.isin(pool.of_hop, records)), np.flatnonzero(np.isin(pool.of_beat, records))
        for part in np.array_split(hops, max(hops.size // 512, 1)):
            hop[part] = model.hops(*wave_and_mask(pool, part, device))["token"]
        for part in np.array_split(beats, max(beats.size // 1024, 1)):
            out = model.beats(*wave_and_features(pool, part, device))
            beat[part], probs[part], gates[part] = out["token"], out["probs"], out["gates"]
        return cls(hop, beat, features, probs, gates)

    def windows(self, pool: Pool, index: Int) -> Windows:
        """The arguments of `EcgMoe.windows` for the windows that end with hops `index` of the pool."""
        device = self.hop.device
        hops = torch.from_numpy(pool.window_hops[index].astype(np.int64)).to(device)
        beats = torch.from_numpy(pool.window_beats[index].astype(np.int64)).to(device)
        age = torch.from_numpy(pool.beat_age(index)).to(device)
        return self.hop[hops], hops >= 0, self.beat[beats], self.features[beats], age, beats >= 0


def without_waveforms(sequences: Sequences, index: Int, sizes: Sizes, device: str | torch.device) -> Windows:
    """The arguments of `EcgMoe.windows` for windows `index` of RR sequences: no hop, and beats that say their RR."""
    features, age, there = (torch.from_numpy(x).to(device) for x in sequences.windows(index))
    k, _, n = features.shape
    return (
        torch.zeros(k, TOKEN_HOPS, sizes.token, device=device),
        torch.zeros(k, TOKEN_HOPS, dtype=torch.bool, device=device),
        torch.zeros(k, TOKEN_BEATS, sizes.token, device=device),
        fn.pad(features, (0, sizes.window_features - n)), age, there,
    )  # fmt: skip


def wave_and_mask(pool: Pool, hops: Int, device: str) -> tuple[Tensor, Tensor]:
    """Samples (k, 2, 500) and mask (k, 2) of hops of the pool."""
    return torch.from_numpy(pool.hop_wave[hops].astype(np.float32)).to(device), torch.from_numpy(
        pool.hop_mask[hops]
    ).to(device)


def wave_and_features(pool: Pool, beats: Int, device: str) -> tuple[Tensor, Tensor]:
    """Samples (k, 4, 128) and features (k, F) of beats of the pool."""
    wave = torch.from_numpy(pool.beat_wave[beats].astype(np.float32)).to(device)
    return wave, torch.from_numpy(pool.beat_features[beats]).to(device)
