"""The hop encoder: four frozen views and the band stem, which make a token of each hop (2, 500), 4 s at 125 Hz.

Each view keeps the idea of one of the frozen models of arXiv 2603.04589 in small; the stem is ours. Shapes: k hops,
float32.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as fn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.segments import HOP_SAMPLES, N_CHANNELS
from model.sizes import Sizes


def time_conv(n_in: int, n_out: int, kernel: int, stride: int = 2) -> nn.Conv2d:
    """A convolution over time, for `rows_of` a signal: with channels last in memory torch takes three quarters of the
    time of a Conv1d."""
    conv = nn.Conv2d(n_in, n_out, (1, kernel), (1, stride), (0, kernel // 2))
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def rows_of(x: Tensor) -> Tensor:
    """(k, C, n) -> (k, C, 1, n), channels last in memory."""
    return x[:, :, None].contiguous(memory_format=torch.channels_last)


def halved(x: Tensor) -> Tensor:
    """Means of pairs, (k, C, n) -> (k, C, n / 2): for 32 hops an eighth of the time of torch's average pooling."""
    return (x[..., ::2] + x[..., 1::2]) * 0.5


class TrendSeasonView(nn.Module):
    """DLinear's role (Zeng et al. 2022): moving average and remainder, each through one linear map."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        n = N_CHANNELS * HOP_SAMPLES // 4
        self.trend, self.season = nn.Linear(n, s.view), nn.Linear(n, s.view)
        self.whole: nn.Linear | None = None

    def merge(self) -> None:
        """Fold the moving average and both maps into one, for service."""
        n, device = self.season.in_features, self.season.weight.device
        none = self.of_slow(torch.zeros(1, N_CHANNELS, n // N_CHANNELS, device=device))
        each = self.of_slow(torch.eye(n, device=device).reshape(n, N_CHANNELS, -1))
        self.whole = nn.Linear(n, self.season.out_features, device=device).requires_grad_(False)
        self.whole.weight.copy_((each - none).T)
        self.whole.bias.copy_(none[0])

    def of_slow(self, slow: Tensor) -> Tensor:  # (k, 2, 125) -> (k, view)
        trend = fn.avg_pool1d(slow, 25, 1, 12, count_include_pad=False)
        out: Tensor = self.trend(trend.flatten(1)) + self.season((slow - trend).flatten(1))
        return out

    def forward(self, x: Tensor) -> Tensor:  # (k, 2, 500) -> (k, view)
        slow = halved(halved(x))
        out: Tensor = self.of_slow(slow) if self.whole is None else self.whole(slow.flatten(1))
        return out


class PeriodView(nn.Module):
    """TimesNet's role (Wu et al. 2022): fold by the main FFT period to cycles x phases, then convolve in 2-D.

    Ours: one period per hop, 0.25 to 2 s, and a fixed grid of 6 cycles x 20 phases, so that rows batch together.
    """

    CYCLES, PHASES = 6, 20

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(N_CHANNELS, 8, 3, (1, 2), 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.out = nn.Linear(12 * 3 * 5, s.view)
        frequency = torch.arange(257) * (125.0 / 512)
        self.register_buffer("allowed", ((frequency >= 0.5) & (frequency <= 4.0)).float(), persistent=False)
        grid = torch.arange(self.CYCLES)[:, None] + torch.arange(self.PHASES)[None] / self.PHASES
        self.register_buffer("grid", grid.flatten(), persistent=False)

    def fold(self, x: Tensor, power: Tensor) -> Tensor:  # (k, 2, 500), (k, 257) -> (k, 2, 6, 20)
        bin_ = (power * self.get_buffer("allowed")).argmax(1).clamp(min=2)
        period = 512.0 / bin_  # samples (k,)
        at = HOP_SAMPLES - 1 - self.get_buffer("grid") * period[:, None]  # newest first, (k, 120)
        inside = at >= 0
        index = at.clamp(min=0).long()[:, None].expand(-1, N_CHANNELS, -1)
        smooth = fn.pad(x, (2, 2)).unfold(2, 5, 1).mean(3)  # a fifth of the time of torch's average pooling
        folded = smooth.gather(2, index) * inside[:, None]
        return folded.reshape(-1, N_CHANNELS, self.CYCLES, self.PHASES)

    def forward(self, x: Tensor, power: Tensor) -> Tensor:  # (k, 2, 500), (k, 257) -> (k, view)
        h = fn.relu_(self.conv2(fn.relu_(self.conv1(self.fold(x, power)))))  # (k, 12, 3, 5)
        out: Tensor = self.out(h.flatten(1))
        return out


class PatchView(nn.Module):
    """MOMENT's role (Goswami et al. 2024): a transformer over patches, pre-trained to fill in masked ones."""

    PATCH, WIDTH = 20, 24

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        n = HOP_SAMPLES // self.PATCH
        self.embed = nn.Linear(N_CHANNELS * self.PATCH, self.WIDTH)
        self.place = nn.Parameter(torch.randn(n, self.WIDTH) * 0.02)
        self.hidden = nn.Parameter(torch.zeros(N_CHANNELS * self.PATCH))
        self.norm1, self.norm2 = nn.LayerNorm(self.WIDTH), nn.LayerNorm(self.WIDTH)
        self.qkv, self.mix = nn.Linear(self.WIDTH, 3 * self.WIDTH), nn.Linear(self.WIDTH, self.WIDTH)
        self.up, self.down = nn.Linear(self.WIDTH, 2 * self.WIDTH), nn.Linear(2 * self.WIDTH, self.WIDTH)
        self.out = nn.Linear(self.WIDTH, s.view)

    def patches(self, x: Tensor) -> Tensor:  # (k, 2, 500) -> (k, 25, 40)
        return x.reshape(x.shape[0], N_CHANNELS, -1, self.PATCH).transpose(1, 2).flatten(2)

    def encode(self, patches: Tensor) -> Tensor:  # (k, 25, 40) -> (k, 25, 24)
        h = self.embed(patches) + self.place
        q, k, v = self.qkv(self.norm1(h)).chunk(3, -1)
        h = h + self.mix(torch.softmax(q @ k.transpose(1, 2) * self.WIDTH**-0.5, -1) @ v)
        out: Tensor = h + self.down(fn.relu_(self.up(self.norm2(h))))
        return out

    def forward(self, x: Tensor) -> Tensor:  # (k, 2, 500) -> (k, view)
        out: Tensor = self.out(self.encode(self.patches(x)).mean(1))
        return out


class ConvView(nn.Module):
    """ECG-FM's role (McKeen et al. 2024): convolutions, pre-trained so that neighbouring hops of a patient agree."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.conv1, self.conv2 = time_conv(N_CHANNELS, 12, 9), time_conv(12, 16, 7)
        self.conv3 = time_conv(16, 24, 5)
        self.out = nn.Linear(48, s.view)

    def forward(self, x: Tensor) -> Tensor:  # (k, 2, 500) -> (k, view)
        h = fn.relu_(self.conv1(rows_of(halved(x))))  # (k, 12, 1, 125)
        h = fn.relu_(self.conv3(fn.relu_(self.conv2(h))))  # (k, 24, 1, 32)
        out: Tensor = self.out(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))
        return out


def _fuse(module: nn.Module, conv: str, norm: str) -> None:
    """Fold a norm of the module into the convolution before it."""
    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
    setattr(module, norm, nn.Identity())


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them, halving the rate (He et al. 2016, over time)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = time_conv(n_in, n_out, 7), time_conv(n_out, n_out, 7, stride=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.around = time_conv(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:  # (k, C, 1, n) -> (k, C', 1, half of n, rounded up)
        h = fn.relu_(self.norm1(self.conv1(x)))
        out: Tensor = fn.relu_(self.norm2(self.conv2(h)) + self.around(x))
        return out


class ResidualNet(nn.Module):
    """A convolution and four residual blocks, a 32nd of the rate at the end; mean and largest over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = time_conv(N_CHANNELS, width, 15), nn.BatchNorm2d(width)
        sizes = (width, width, 2 * width, 2 * width, 4 * width)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(sizes)))
        self.features = 2 * sizes[-1]

    def forward(self, x: Tensor) -> Tensor:  # (k, 2, n) -> (k, features)
        h = self.blocks(fn.relu_(self.norm(self.conv(rows_of(x)))))
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)

    def fuse(self) -> None:
        """Fold the norms into the convolutions, for service."""
        _fuse(self, "conv", "norm")
        for block in self.blocks:
            _fuse(block, "conv1", "norm1")
            _fuse(block, "conv2", "norm2")


class BandStem(nn.Module):
    """What the band expert needs of a hop: P, QRS and T, f-waves, flutter, VF by a residual net; spectrum, size, and
    how much of the time the signal and its slope are far under their peaks (QRS complexes are steep and brief).

    Learnt with labels, unlike the views; it runs once per hop and its answer is part of the hop token.
    """

    SHARES = (0.1, 0.2, 0.35, 0.5)  # of the peak, mean over the seconds of the hop

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.net = ResidualNet(s.stem_width)
        n = 36 + 2 * N_CHANNELS * (1 + len(self.SHARES))
        self.flat_norm = nn.BatchNorm1d(n)
        self.flat = nn.Linear(n, 32)
        self.dropout = nn.Dropout(s.stem_dropout)
        self.out = nn.Linear(self.net.features + 32, s.band)

    def describe(self, x: Tensor, level: Tensor, mask: Tensor, power: Tensor) -> Tensor:
        """(k, 2, 250) at 62.5 Hz, (k, 2), (k, 2), (k, 257) -> (k, 56)."""
        total = power.sum(1, keepdim=True) + 1e-3
        fine = power[:, :64].reshape(-1, 32, 2).sum(2) / total  # about 0.5 Hz each, up to 15.6 Hz
        coarse = power[:, 64:256].reshape(-1, 4, 48).sum(2) / total
        parts = [torch.log(torch.cat([fine, coarse], 1) + 1e-4), level, mask]
        for size in (x.abs(), (x[..., 1:] - x[..., :-1]).abs()):
            top = fn.max_pool1d(size, 62).mean(2, keepdim=True)
            parts += [(size < share * top).count_nonzero(2) / size.shape[2] for share in self.SHARES]
        return torch.cat(parts, 1)

    def forward(self, x: Tensor, level: Tensor, mask: Tensor, power: Tensor) -> Tensor:  # -> (k, band)
        described = self.describe(halved(x), level, mask, power)
        flat = fn.relu(self.flat(self.flat_norm(described).clamp(-5, 5)))
        return torch.tanh(self.out(self.dropout(torch.cat([self.net(x), flat], 1))))

    def fuse(self) -> None:
        """Fold the norms into the convolutions, for service."""
        self.net.fuse()


class HopEncoder(nn.Module):
    """Four frozen views and the band stem of a hop, side by side: the hop token."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.trend_season, self.period = TrendSeasonView(s), PeriodView(s)
        self.patch, self.conv = PatchView(s), ConvView(s)
        self.band = BandStem(s)
        self.view_norm = nn.BatchNorm1d(4 * s.view, affine=False)

    @staticmethod
    def prepare(wave: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mV (k, 2, 500) to unit spread, log spread (k, 2), spectral power (k, 257) of both leads."""
        centred = wave - wave.mean(2, keepdim=True)
        spread = centred.square().mean(2, keepdim=True).sqrt()
        x = (centred / (spread + 0.01)).clamp(-8, 8) * mask.gt(0)[..., None]
        level = torch.log(spread[..., 0] + 0.01)
        taper = torch.hann_window(HOP_SAMPLES, device=wave.device)
        power = torch.fft.rfft(x * taper, 512).abs().square().sum(1)
        return x, level, power

    def views(self, x: Tensor, power: Tensor) -> Tensor:  # (k, 4 * view)
        views = [self.trend_season(x), self.period(x, power), self.patch(x), self.conv(x)]
        out: Tensor = self.view_norm(torch.cat(views, 1)).clamp(-5, 5)
        return out

    def forward(self, wave: Tensor, mask: Tensor) -> Tensor:  # (k, 2, 500), (k, 2) -> (k, D)
        x, level, power = self.prepare(wave, mask)
        return torch.cat([self.views(x, power), self.band(x, level, mask, power)], 1)
