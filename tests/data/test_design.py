"""The core design: repeats, splits, facts of the real data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsdbench.data.checks_core import check_test_set
from nsdbench.data.design import CoreTrials, count_repeats, sessions_used, split_rows
from nsdbench.data.facts import nsd_expectations, runs, targets
from nsdbench.errors import IntegrityError, ProtocolError


@given(st.lists(st.integers(0, 5)))
def test_repeats_count_earlier_occurrences(ids):
    assert count_repeats(np.array(ids, int)).tolist() == [ids[:k].count(i) for k, i in enumerate(ids)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1000, 982, 515]))
def test_training_and_test_rows_never_share_an_image(seed, definition):
    rng = np.random.default_rng(seed)
    image = rng.permutation(np.repeat(np.arange(64), 3))
    trials = CoreTrials(image, np.arange(192) // 6 + 1, count_repeats(image), image < 10)
    train, test = split_rows(trials, definition, 32)
    assert not set(image[train].tolist()) & set(image[test].tolist())
    assert not (train & trials.shared).any()
    assert not test[~trials.shared].any()


@pytest.mark.parametrize(("definition", "sessions", "used"), [(1000, 40, 40), (982, 40, 37), (515, 32, 30)])
def test_definitions_read_the_published_sessions(definition, sessions, used):
    assert sessions_used(definition, sessions) == used


@pytest.mark.parametrize(("definition", "sessions"), [(982, 3), (515, 29)])
def test_definitions_need_enough_sessions(definition, sessions):
    with pytest.raises(ProtocolError):
        sessions_used(definition, sessions)


@pytest.mark.parametrize(
    ("definition", "subject", "images", "rows"),
    [
        (1000, 1, 1000, 3000),
        (982, 1, 982, 2770),
        (515, 1, 515, 1545),
        (1000, 3, 930, 2371),
        (982, 4, 900, 1985),
    ],
)
def test_published_sizes_of_the_test_sets_are_accepted(definition, subject, images, rows):
    assert check_test_set(images, rows, definition, nsd_expectations().of(subject)) == ()


@pytest.mark.parametrize(
    ("definition", "images", "rows"), [(1000, 982, 2770), (982, 1000, 3000), (515, 766, 1545)]
)
def test_other_sizes_of_the_test_sets_are_refused(definition, images, rows):
    with pytest.raises(IntegrityError) as caught:
        check_test_set(images, rows, definition, nsd_expectations().of(1))
    assert caught.value.check == "test_set"


def test_the_real_nsd_has_the_published_voxel_counts_and_grids():
    known = nsd_expectations().subjects
    assert [known[s].n_voxels for s in range(1, 9)] == [
        15724,
        14278,
        15226,
        13153,
        13039,
        17907,
        12682,
        14386,
    ]
    assert known[1].grid == (81, 104, 83)
    assert [known[s].sessions for s in range(1, 9)] == [40, 40, 32, 30, 40, 32, 40, 30]


def test_the_session_has_432_vision_and_imagery_rows_in_acquisition_order():
    assert [r.name for r in runs()] == (
        [
            "visA",
            "attA",
            "imgA_1",
            "visB",
            "attB",
            "imgB_1",
            "visC",
            "attC",
            "imgC_1",
            "imgA_2",
            "imgB_2",
            "imgC_2",
        ]
    )
    assert sum(r.n_betas for r in runs() if r.task != "attention") == 432
    assert [r.start for r in runs()][1:] == [r.stop for r in runs()][:-1]


def test_targets_have_the_published_letters_and_images():
    assert "".join(t.cue for t in targets()) == "HRVLPEWKBCDTSZMYNF"
    assert [t.id for t in targets() if not t.has_image] == ["C1", "C2", "C3", "C4", "C5", "C6"]
