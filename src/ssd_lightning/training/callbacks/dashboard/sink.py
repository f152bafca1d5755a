"""Interface of the places where a dashboard is shown."""

from collections.abc import Sequence

import numpy as np

from ssd_lightning.training.callbacks.dashboard.contents import BestModel, Validation
from ssd_lightning.visualization.training_plots import LevelCount


class Sink:
    """A place where a dashboard is shown. Subclasses override what they can show."""

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Show the first training batch with its matched priors, uint8 `[H, W, 3]`."""

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Show the number of matched priors per level, as numbers and as a drawing, uint8 `[H, W, 3]`."""

    def show_validation(self, validation: Validation) -> None:
        """Show a validation."""

    def show_best_score(self, score: float, *, step: int) -> None:
        """Show the score of a new best checkpoint."""

    def keep_model(self, best: BestModel, *, is_last: bool) -> None:
        """Keep the best checkpoint. `is_last` is true at the end of training."""
