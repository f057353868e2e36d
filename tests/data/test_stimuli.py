"""Images, captions, letters."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from nsdbench.errors import DataError, IntegrityError, UsageError


def test_core_images_are_the_0_based_rows_of_imgbrick(dataset, built, nsd_fixture):
    stimuli = dataset.stimuli("shared1000")
    assert stimuli.ids == tuple(sorted(f"img{k - 1:05d}" for k in built.subjectim[0, : built.plan.n_shared]))
    for i in stimuli.ids:
        np.testing.assert_array_equal(stimuli.image(i), nsd_fixture.picture(int(i[3:]), built.plan.side))


def test_training_stimuli_are_those_of_the_training_trials(dataset):
    assert dataset.stimuli("train", 2).ids == dataset.train(2).targets


def test_training_stimuli_need_a_subject(dataset):
    with pytest.raises(UsageError, match="name one"):
        dataset.stimuli("train")


@pytest.mark.parametrize("split", ["vision", "imagery"])
def test_the_18_targets_have_letters_and_only_a_and_b_have_images(dataset, split):
    stimuli = dataset.stimuli(split)
    assert stimuli.ids == tuple(f"{s}{k}" for s in "ABC" for k in range(1, 7))
    assert "".join(stimuli.cues[i] for i in stimuli.ids) == "HRVLPEWKBCDTSZMYNF"
    assert stimuli.has_image == {i for i in stimuli.ids if i[0] != "C"}
    with pytest.raises(DataError, match="no fixed image"):
        stimuli.image("C1")


def test_grey_targets_come_as_rgb(dataset, built):
    image = dataset.stimuli("vision").image("A3")
    assert image.shape == (built.plan.side, built.plan.side, 3)
    assert np.all(image == 60)


def test_scene_targets_carry_the_caption_of_their_nsd_image(dataset, built):
    captions = dataset.stimuli("imagery").captions
    row = int(built.names["B2"][-5:]) - 1
    assert captions["B2"] == (f"picture {row}", f"again {row}")
    assert set(captions) == {"B1", "B2", "B3", "B4", "B5"}


def test_vision_and_imagery_share_one_stimulus_hash(dataset):
    assert dataset.stimuli("vision").content_hash == dataset.stimuli("imagery").content_hash


def test_another_picture_is_another_stimulus_hash(dataset, copied, open_copy, nsd_fixture, built):
    path = copied / f"nsddata/experiments/nsdimagery/rawtargetimages/setB/{built.names['B6']}.png"
    nsd_fixture.target_picture("A1", "", built.plan.side).save(path)
    assert open_copy().stimuli("vision").content_hash != dataset.stimuli("vision").content_hash


def test_a_brick_with_too_few_images_is_refused(copied, open_copy):
    import h5py

    path = copied / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(path) as file:
        some = file["imgBrick"][:-1]
    with h5py.File(path, "w") as file:
        file["imgBrick"] = some
    with pytest.raises(IntegrityError) as caught:
        open_copy().stimuli("shared1000")
    assert caught.value.check == "image_brick"


def test_a_picture_that_is_no_image_is_a_named_error(copied, open_copy, built):
    path = copied / f"nsddata/experiments/nsdimagery/rawtargetimages/setA/{built.names['A1']}.png"
    path.write_bytes(b"not a png")
    with pytest.raises(DataError, match="cannot be read as an image"):
        open_copy().stimuli("vision").image("A1")


def test_image_readers_travel_to_other_processes(dataset):
    reader = dataset.stimuli("shared1000").read_image
    first = dataset.stimuli("shared1000").ids[0]
    expected = reader(first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))(first), expected)
