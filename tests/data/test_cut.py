"""What is cut for validation or test: near the share asked for in every class, and no group in two."""

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION
from fer_fast.data.splits import TEST_FRACTION, cut, rows_of
from fer_fast.errors import InputError
from listings import listing, part, picked, rows


def test_official_parts_are_taken_as_they_are():
    copy = listing(train=part([0] * 8), val=part([1] * 4), test=part([2] * 3))
    for split, count in (("train", 8), ("val", 4), ("test", 3)):
        name, chosen = rows_of(copy, split, seed=0, fold=None, name="drawn")
        assert name == split
        assert chosen.tolist() == list(range(count))


def test_a_validation_part_is_cut_from_train_and_nothing_else():
    copy = listing(train=part([0] * 40 + [1] * 80), test=part([0, 1]))
    train, val = rows(copy, "train"), rows(copy, "val")
    assert rows_of(copy, "val", seed=0, fold=None, name="drawn")[0] == "train"
    assert train | val == set(range(120))
    assert not train & val
    assert [sum(row < 40 for row in val), sum(row >= 40 for row in val)] == [5, 10]
    assert rows(copy, "test") == {0, 1}


@pytest.mark.parametrize("parts", [("train", "test"), ("all",)])
@pytest.mark.parametrize("seed", range(3))
def test_so_many_images_of_each_class_are_cut(parts, seed):
    copy = listing(**{name: part([0] * 30 + [1] * 200 + [2] * 41) for name in parts})
    train, val = (rows(copy, split, seed=seed, validation=20) for split in ("train", "val"))
    labels = copy.parts[parts[0]].labels
    assert np.bincount(labels[sorted(val)]).tolist() == [20, 20, 20]
    assert not train & val
    if parts == ("train", "test"):
        assert train | val == set(range(271))
        assert rows(copy, "val", seed=seed + 1, validation=20) != val


def test_the_share_that_is_cut_can_be_said():
    copy = listing(train=part([0] * 40 + [1] * 80), test=part([0]))
    for share, counts in ((0.25, [10, 20]), (0.05, [2, 4]), (0.99, [39, 79])):
        val = rows(copy, "val", validation=share)
        assert np.bincount(copy.parts["train"].labels[sorted(val)]).tolist() == counts


@pytest.mark.parametrize("validation", [3, 4, 500])
def test_a_class_is_larger_than_what_validation_takes_of_it(validation):
    copy = listing(train=part([0] * 1000 + [2] * 3), test=part([0]))
    with pytest.raises(InputError, match=f"drawn: validation takes {validation} images of each class, of fear there"):
        rows(copy, "train", validation=validation)
    assert len(rows(copy, "val", validation=2)) == 4


def test_whole_units_are_cut_near_so_many_images_of_each_class():
    data = part(np.repeat(np.arange(120) % 3, 5), subjects=np.repeat(np.arange(120), 5))
    for copy, role in ((listing(train=data, test=data), "both"), (listing(all=data), "training")):
        val = rows(copy, "val", validation=52, role=role)
        assert np.bincount(data.labels[sorted(val)]).tolist() == [50, 50, 50]
        assert not picked(data.subjects, val) & picked(data.subjects, rows(copy, "train", validation=52, role=role))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=12), st.integers(0, 5))
def test_no_class_is_cut_off_as_a_whole(groups, seed):
    """Nor with pictures of a rarer class that it shares its groups with."""
    data = part([label for group in groups for label in group], groups=[i for i, g in enumerate(groups) for _ in g])
    for share in (VALIDATION_FRACTION, 0.9, 1, 2):
        try:
            off = cut(data, np.arange(len(data)), share, seed)
        except InputError:
            continue
        assert set(data.labels[~off]) == set(data.labels)
        assert off.any()


@pytest.mark.parametrize("split", ["test", "nowhere"])
def test_a_split_that_is_not_there_is_named(split):
    with pytest.raises(InputError, match=f"(no split '{split}'|no {split} images)"):
        rows(listing(train=part([0] * 8)), split)


@st.composite
def grouped(draw):
    """Pictures of one to three classes in groups of one class or several."""
    count = draw(st.integers(2, 120))
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    groups = draw(st.none() | st.lists(st.integers(0, 40), min_size=count, max_size=count))
    return part(labels, groups=groups)


@given(grouped(), st.integers(0, 5))
def test_splits_without_subjects_cover_everything_once_and_cut_no_group(data, seed):
    copy = listing(all=data)
    try:
        splits = [rows(copy, split, seed=seed) for split in SPLITS]
    except InputError:
        reject()  # no class of two groups
    assert set.union(*splits) == set(range(len(data)))
    assert sum(map(len, splits)) == len(data)
    assert all(splits)
    sides = [picked(data.groups or data.names, split) for split in splits]
    assert len(set.union(*sides)) == sum(map(len, sides))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), min_size=2, max_size=80),
    st.sampled_from((TEST_FRACTION, VALIDATION_FRACTION, 0.5)),
    st.integers(0, 5),
)
def test_a_cut_of_groups_of_one_class_is_as_near_the_fraction_as_they_allow(groups, fraction, seed):
    data = part(
        [label for label, size in groups for _ in range(size)],
        groups=[i for i, (_, size) in enumerate(groups) for _ in range(size)],
    )
    of_class = {label: [size for other, size in groups if other == label] for label in range(3)}
    if max(map(len, of_class.values())) < 2:
        with pytest.raises(InputError, match="two training images"):
            cut(data, np.arange(len(data)), fraction, seed)
        return
    off = cut(data, np.arange(len(data)), fraction, seed)
    for label, sizes in of_class.items():
        mine = data.labels == label
        taken = int(off[mine].sum())
        if len(sizes) < 2:
            assert taken == 0  # one group stays for training
            continue
        assert 0 < taken < sum(sizes)
        assert abs(taken - fraction * sum(sizes)) <= max(sizes)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=90), st.integers(0, 5))
def test_of_groups_of_several_classes_the_rarest_class_is_near_the_fraction(groups, seed):
    data = part([label for group in groups for label in group], groups=[i for i, g in enumerate(groups) for _ in g])
    totals = np.bincount(data.labels, minlength=3)
    rarest = int(np.where(totals > 0, totals, len(data)).argmin())
    free = [group for group in groups if all(group.count(label) < totals[label] for label in group)]
    if sum(rarest in group for group in free) < 2:  # a group that has all there is of a class stays
        return
    off = cut(data, np.arange(len(data)), TEST_FRACTION, seed)
    back = 2 * 4  # pictures: for each of the other classes a group may come back, or all of that class were gone
    assert abs(off[data.labels == rarest].sum() - TEST_FRACTION * totals[rarest]) <= 4 + back
    assert all((~off)[data.labels == label].sum() > 0 for label in np.flatnonzero(totals))


@pytest.mark.parametrize("seed", range(3))
def test_faces_of_photographs_are_cut_near_the_fraction_in_every_class(seed):
    """ExpW's shape at a tenth: uneven classes, up to four faces a photograph, which are alike more often than not."""
    generator = np.random.default_rng(seed)
    sizes = np.array([3671, 3995, 1088, 30537, 10559, 7060, 34883])
    labels, groups = [], []
    for photograph in range(7000):
        label = generator.choice(7, p=sizes / sizes.sum())
        faces = int(generator.choice([1, 2, 3, 4], p=[0.8, 0.12, 0.05, 0.03]))
        others = generator.choice(7, faces, p=sizes / sizes.sum())
        labels += np.where(generator.random(faces) < 0.6, label, others).tolist()
        groups += [photograph] * faces
    data = part(labels, groups=groups)
    off = cut(data, np.arange(len(data)), VALIDATION_FRACTION, seed)
    shares = np.bincount(data.labels[off]) / np.bincount(data.labels)
    assert abs(shares - VALIDATION_FRACTION).max() < 0.01


def test_a_cut_is_decided_by_its_seed():
    data = part(np.arange(300) % 3)
    first, again, other = (cut(data, np.arange(300), TEST_FRACTION, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_cut_does_not_take_only_first_or_last_pictures():
    off = np.flatnonzero(cut(part([0] * 1000), np.arange(1000), TEST_FRACTION, 0))
    assert len(off) == 200
    assert 400 < off.mean() < 600


def test_subjects_stay_whole_where_a_training_part_knows_them():
    data = part(np.arange(120) % 3, subjects=np.arange(120) // 6, groups=np.arange(120) // 2)
    off = cut(data, np.arange(120), VALIDATION_FRACTION, 0)
    assert not picked(data.subjects, set(np.flatnonzero(off))) & picked(data.subjects, set(np.flatnonzero(~off)))


def test_a_large_cut_takes_seconds_not_minutes():
    labels = np.random.default_rng(0).integers(0, 8, 290_000)
    off = cut(part(labels), np.arange(len(labels)), VALIDATION_FRACTION, 0)
    expected = np.array([round(VALIDATION_FRACTION * n) for n in np.bincount(labels)])
    assert abs(np.bincount(labels[off]) - expected).max() <= 1


def test_no_group_of_a_sequence_is_cut_where_every_subject_shows_every_class():
    """Oulu-CASIA's shape without its subjects: 480 sequences of three frames."""
    data = part(np.repeat(np.arange(480) % 3, 3), groups=np.repeat(np.arange(480), 3))
    off = cut(data, np.arange(1440), TEST_FRACTION, 0)
    assert off.reshape(480, 3).all(1).sum() * 3 == off.sum()
    assert np.bincount(data.labels[off]).tolist() == [96, 96, 96]
