"""One loader for NSD and NSD-Imagery: trials, stimuli, integrity checks.

>>> from nsdbench.data import Dataset, LoadOptions
>>> data = Dataset.open(root)  # doctest: +SKIP
>>> train = data.train(subject=1)  # doctest: +SKIP
>>> imagery = data.trials(1, "imagery", LoadOptions(imagery_runs="2"))  # doctest: +SKIP
"""

from nsdbench.data.dataset import LOADER_VERSION, Dataset
from nsdbench.data.facts import MARKER_NAME
from nsdbench.data.options import LoadOptions
from nsdbench.data.verify import CheckResult, verify

__all__ = ["LOADER_VERSION", "MARKER_NAME", "CheckResult", "Dataset", "LoadOptions", "verify"]
