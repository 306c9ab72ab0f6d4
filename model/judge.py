"""The trained model as a service sees it: arrays in, arrays out.

    judge = Judge.load(None, "cpu")
    judge.warm((1, 8, 32, 128))
    judge.beats(wave, features)["probs"]

Stateless: tokens are the caller's to keep. The rows of an answer belong to the rows of the question.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.ecg_moe import WINDOW_TASKS, EcgMoe, example_inputs
from model.segments import FEATURES
from model.sizes import Sizes

WEIGHTS = Path(__file__).parent / "weights" / "ecg_moe.safetensors"
FORMAT = "2"

Arrays = dict[str, npt.NDArray[np.float32]]
Call = Callable[..., dict[str, Tensor]]


class WeightsError(ValueError):
    """Weights that do not fit this code: names the file, what is wrong and the mend."""


def save(model: EcgMoe, path: Path, version: str, trained: Iterable[str]) -> None:
    """Write weights of a model not yet turned `for_service`. `trained`: the tasks that learnt from labels."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    about = {
        "format": FORMAT, "version": version, "sizes": json.dumps(asdict(model.sizes)),
        "features": json.dumps(FEATURES), "trained": json.dumps(sorted(trained)),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, about)
    path.chmod(0o644)  # safetensors leaves it to its owner alone


def load_model(path: Path) -> tuple[EcgMoe, dict[str, Any]]:
    """The plain model of a weights file and the file's description. Raises WeightsError."""
    mend = "train them anew with `run_pipeline.py train`, or name others as weights"
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except FileNotFoundError:
        raise WeightsError(f"weights {path}: there is no such file; {mend}") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights {path}: not a safetensors file ({error}); {mend}") from None
    if about.get("format") != FORMAT:
        raise WeightsError(f"weights {path}: format {about.get('format')!r}, this code reads {FORMAT!r}; {mend}")
    try:
        raw = json.loads(about["sizes"])
        sizes = Sizes(**{**raw, "kernels": tuple(raw["kernels"])})
        trained = set(json.loads(about["trained"]))
        features = tuple(json.loads(about["features"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"weights {path}: its description cannot be read ({error}); {mend}") from None
    if features != FEATURES:
        raise WeightsError(f"weights {path}: learnt on other beat features than are cut here; {mend}")
    model = EcgMoe(sizes)
    expected = model.state_dict()
    missing, odd = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or odd:
        names = f"lacks {missing[0]!r}" if missing else f"holds {odd[0]!r}, unknown here"
        whose = f"{about['version']}, of another architecture: " if "version" in about else ""
        raise WeightsError(f"weights {path}: {whose}{names} ({len(missing)} missing, {len(odd)} unknown); {mend}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise WeightsError(f"weights {path}: {name!r} has shape {shapes}; {mend}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"weights {path}: {name!r} holds values that are not finite; {mend}")
    model.load_state_dict(tensors)
    return model, about | {"trained": trained}


class DeviceError(ValueError):
    """A device that cannot be used here."""


class Judge:
    """The model in its form for service. `version` names the weights; D, F, W, E, E2 are the sizes of its arrays,
    `sizes` those of the model."""

    def __init__(self, model: EcgMoe, version: str, trained: Iterable[str], device: str = "cpu") -> None:
        self.version, self.device = version, torch.device(device)
        self.untrained = frozenset(WINDOW_TASKS) - frozenset(trained)
        self.sizes = model.sizes
        self._beats, self._hops, self._windows = _calls(model.for_service().to(self.device))
        self.D, self.F, self.E = model.sizes.token, model.sizes.features, len(model.sizes.kernels)
        self.W = model.sizes.window_features
        self.E2 = model.fusion.N_EXPERTS + 2

    @classmethod
    def load(cls, path: Path | str | None = None, device: str | None = None) -> "Judge":
        """Load weights (those that come with the package where None) to a torch device (a GPU where there is one).

        Raises WeightsError where they do not fit this code, DeviceError for a device that is not here.
        """
        model, about = load_model(Path(path) if path is not None else WEIGHTS)
        if device in (None, "auto"):
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.zeros(1, device=device)
        except (AssertionError, RuntimeError) as error:
            raise DeviceError(
                f"device: {device!r} cannot be used here ({str(error).splitlines()[0]}); give cpu or auto"
            ) from None
        return cls(model, str(about["version"]), about["trained"], str(device))

    def beats(self, wave: npt.NDArray[np.float32], features: npt.NDArray[np.float32]) -> Arrays:
        """wave (k, 4, 128), features (k, F) of `model.segments` -> probs (k, 5), token (k, D), gates (k, E)."""
        return self._run(self._beats, wave, features)

    def hops(self, wave: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> Arrays:
        """wave (k, 2, 500), mask (k, 2) of `cut_hops` -> token (k, D)."""
        return self._run(self._hops, wave, mask)

    def windows(
        self,
        hop_tokens: npt.NDArray[np.float32],
        hop_mask: npt.NDArray[np.bool_],
        beat_tokens: npt.NDArray[np.float32],
        beat_features: npt.NDArray[np.float32],
        beat_age: npt.NDArray[np.float32],
        beat_mask: npt.NDArray[np.bool_],
    ) -> Arrays:
        """hop_tokens (k, 15, D), hop_mask (k, 15), beat_tokens (k, 48, D), beat_features (k, 48, W), beat_age (k, 48),
        seconds from the R peak to the end of the window, beat_mask (k, 48).

        The newest hop and beat stand last, slots without one come first and are False in the mask (their values do
        not matter). Beats are those of the last 30 s. Gives rhythm (k, 10), shockable, quality, rr_ms, age, male,
        potassium (k,), arrhythmia (k, 4), gates (k, E2). A task that never learnt from labels answers NaN, as does
        rr_ms where no RR is known.
        """
        hop_tokens = _where(hop_mask, hop_tokens)
        beat_tokens, beat_features, beat_age = (_where(beat_mask, x) for x in (beat_tokens, beat_features, beat_age))
        out = self._run(self._windows, hop_tokens, hop_mask, beat_tokens, beat_features, beat_age, beat_mask)
        for task in self.untrained:
            out[task] = np.full_like(out[task], np.nan)
        return out

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Run every kind of item once at each batch size, so that no real item pays for a first time."""
        for k in batch_sizes:
            self.beats(*(x.numpy() for x in example_inputs("beat", k, self.sizes)))
            self.hops(*(x.numpy() for x in example_inputs("hop", k, self.sizes)))
            self.windows(*(x.numpy() for x in example_inputs("window", k, self.sizes)))

    def _run(self, call: Call, *arrays: npt.NDArray[Any]) -> Arrays:
        with torch.inference_mode():
            out = call(*(torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in arrays))
            return {name: tensor.cpu().numpy() for name, tensor in out.items()}


def _where(there: npt.NDArray[np.bool_], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A copy of `values`, 0 where nothing is; a third of the time of np.where."""
    out = values.copy()
    out[~there] = 0
    return out


class _Kind(nn.Module):
    """One of the calls of the model as a module, which is what can be traced."""

    def __init__(self, model: EcgMoe, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, *arrays: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = getattr(self.model, f"{self.kind}s")(*arrays)
        return out


def _calls(model: EcgMoe) -> list[Call]:
    """The calls of a model `for_service`: beats, hops, windows. On a CPU they are traced to programs of torch's own,
    without Python between the operations, which is a third of the time of a call of few items; the answers are the
    same to the bit, for nothing is fused.

    torch calls its tracer deprecated, but what is to take its place wants a C++ compiler where the model runs and a
    minute at each start, or goes through Python. constraints.txt pins the version of torch."""
    kinds = [_Kind(model, kind).eval() for kind in ("beat", "hop", "window")]
    if next(model.parameters()).device.type != "cpu":
        return list(kinds)
    return [traced(kind, example_inputs(kind.kind, 8, model.sizes)) for kind in kinds]


def traced(module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    """A module that is not trained any more, as such a program; `inputs`: examples, of any number of items."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.set_fusion_strategy([])  # else the second call of each program is slow
        program = torch.jit.trace(module, inputs, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        frozen: Call = torch.jit.freeze(program)
    return frozen
