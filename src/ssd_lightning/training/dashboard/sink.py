"""What a place has to offer where a dashboard is shown."""

from collections.abc import Sequence

import numpy as np

from ssd_lightning.training.dashboard.contents import BestModel, Validation
from ssd_lightning.visualization.training_plots import LevelCount


class Sink:
    """A place where a dashboard is shown; each takes what it can show, the rest passes it by."""

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Show the first training batch with its matched priors, uint8 `[H, W, 3]`."""

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Show how many priors of each level are matched, as numbers and as uint8 `[H, W, 3]`."""

    def show_validation(self, validation: Validation) -> None:
        """Show a validation."""

    def show_best_score(self, score: float, *, step: int) -> None:
        """Show the score of the best checkpoint, when there is a new one."""

    def show_curves(self) -> None:
        """Show all that has been logged so far."""

    def keep_model(self, best: BestModel, *, is_last: bool) -> None:
        """Keep the best checkpoint; `is_last` at the end of the training."""
