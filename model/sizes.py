"""How large the parts of the model are: apart from it, for the modules that share them."""

from dataclasses import dataclass

from model.labels import BEATS
from model.segments import FEATURES, WINDOW_FEATURES


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes that are given to the parts."""

    features: int = len(FEATURES)
    window_features: int = len(WINDOW_FEATURES)  # of the features, the first: what a window sees of its beats
    members: int = 4  # of the experts on features
    member_width: int = 96
    view: int = 8  # of each of the four views
    band: int = 32
    stem_width: int = 16  # channels of the band stem at first; four times as many at the end
    kernels: tuple[int, ...] = (3, 7, 15, 23)  # of the morphology experts
    width: int = 8  # channels of a morphology expert; a multiple of 8 suits vector units
    rhythm: int = 48
    rank: int = 4
    alpha: float = 8.0
    dropout: float = 0.2
    stem_dropout: float = 0.1

    @property
    def token(self) -> int:
        """Size of a hop token and of a beat token."""
        return 4 * self.view + self.band

    @property
    def code(self) -> int:
        """Of a beat token what comes before the classes, which are in it so that windows know ectopic beats."""
        return self.token - len(BEATS)


SIZES = Sizes()
