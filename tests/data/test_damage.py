"""Whatever happens to a file, the loader answers with a named error or sound data, never with a traceback."""

from __future__ import annotations

import numpy as np
import pytest

from nsdbench.data import verify
from nsdbench.errors import NsdbenchError

FILES = (
    "nsdbench-dataset.json",
    "nsddata/experiments/nsd/nsd_expdesign.mat",
    "nsddata/experiments/nsd/nsd_stim_info_merged.csv",
    "nsddata/experiments/nsdimagery/A_pair_list.mat",
    "nsddata/experiments/nsdimagery/designmatrixGLMsingle.mat",
    "nsddata/bdata/nsdimagery/nsdimagery_subj01_visA.tsv",
    "nsddata/ppdata/subj01/behav/responses.tsv",
    "nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz",
    "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz",
    "nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz",
    "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session02.hdf5",
    "nsddata_betas/ppdata/subj01/func1pt8mm/nsdimagerybetas_fithrf_GLMdenoise_RR/betas_nsdimagery.hdf5",
    "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
)


def _scramble(content: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    damaged = np.frombuffer(content, np.uint8).copy()
    at = rng.integers(0, min(len(damaged), 2000), 40)
    damaged[at] = rng.integers(0, 256, 40)
    return damaged.tobytes()


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "foreign": lambda content: b"<html><body>AccessDenied</body></html>" * 20,
    "scrambled 1": lambda content: _scramble(content, 1),
    "scrambled 2": lambda content: _scramble(content, 2),
}


# scipy's MATLAB reader can crash the whole process on scrambled bytes, so those are left out
CASES = [(f, d) for f in FILES for d in DAMAGE if not (f.endswith(".mat") and d.startswith("scrambled"))]


@pytest.mark.parametrize(("file", "damage"), CASES)
def test_a_damaged_file_gives_named_errors_only(copied, open_copy, file, damage):
    path = copied / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    uses = [
        lambda: open_copy().train(1),
        lambda: open_copy().trials(1, "vision"),
        lambda: open_copy().trials(1, "shared1000"),
        lambda: open_copy().stimuli("vision").image("A1"),
        lambda: [s := open_copy().stimuli("shared1000"), s.image(s.ids[0])],
        lambda: verify(copied, [1]),
    ]
    for use in uses:
        try:
            use()
        except NsdbenchError as error:
            assert error.message  # a named error is as good as sound data
