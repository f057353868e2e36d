"""A decoder whose fit takes for ever."""

from __future__ import annotations

import itertools
import time

from nsdbench.adapters.floors import MeanImage
from nsdbench.types import Progress, Stimuli, Trials


class Slow(MeanImage):
    name = "slow"

    def learn(self, train: Trials, stimuli: Stimuli, progress: Progress) -> None:
        for _ in progress.track(itertools.count(), "waiting"):
            time.sleep(0.01)
