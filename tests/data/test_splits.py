"""What is trained on, selects and is reported: no person and no group on two sides, every picture reported once."""

import json

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fer_fast.data.dataset import SPLITS, VALIDATION_FRACTION
from fer_fast.data.listing import Listing, Part
from fer_fast.data.pictures import Files
from fer_fast.data.splits import FOLDS, TEST_FRACTION, absences, cut, folds_of, manifest, rows_of
from fer_fast.errors import InputError

CLASSES = ("happiness", "sadness", "fear")


def part(labels, subjects=None, groups=None) -> Part:
    names = tuple(f"{i}.png" for i in range(len(labels)))
    columns = [None if column is None else tuple(map(str, column)) for column in (subjects, groups)]
    return Part(Files(names), np.array(labels, np.int64), names, subjects=columns[0], groups=columns[1])


def listing(**parts: Part) -> Listing:
    return Listing("drawn", CLASSES, parts)


def rows(copy: Listing, split: str, *, seed: int = 0, fold: int | None = None) -> set[int]:
    return set(rows_of(copy, split, seed=seed, fold=fold, name="drawn")[1].tolist())


def picked(column: tuple[str, ...], of: set[int]) -> set[str]:
    return {column[row] for row in of}


@st.composite
def people(draw, fewest: int = FOLDS):
    """A part of at least so many subjects, whose pictures lie in any order, in groups that may hold two people."""
    subjects = draw(st.lists(st.integers(0, 30), min_size=1, max_size=80)) + list(range(fewest))
    labels = draw(st.lists(st.integers(0, 2), min_size=len(subjects), max_size=len(subjects)))
    order = draw(st.permutations(range(len(subjects))))
    shared = draw(st.sampled_from((1, 2, 1000)))  # pictures of up to so many subjects may share a group
    groups = [f"{subject // shared if subject >= fewest else subject}-{i % 3}" for i, subject in enumerate(subjects)]
    return part([labels[i] for i in order], [subjects[i] for i in order], [groups[i] for i in order])


@given(people())
def test_every_picture_is_reported_in_exactly_one_fold(data):
    copy = listing(all=data)
    reported = [row for fold in range(1, FOLDS + 1) for row in rows(copy, "test", fold=fold)]
    assert sorted(reported) == list(range(len(data)))


@given(people(), st.integers(1, FOLDS))
def test_splits_of_a_fold_share_no_picture_subject_or_group(data, fold):
    copy = listing(all=data)
    splits = [rows(copy, split, fold=fold) for split in SPLITS]
    assert set.union(*splits) == set(range(len(data)))
    assert sum(map(len, splits)) == len(data)
    for column in (data.subjects, data.groups):
        sides = [picked(column, split) for split in splits]
        assert len(set.union(*sides)) == sum(map(len, sides))


@given(people(), st.integers(1, FOLDS))
def test_the_validation_split_is_the_test_split_of_the_next_fold(data, fold):
    copy = listing(all=data)
    assert rows(copy, "val", fold=fold) == rows(copy, "test", fold=fold % FOLDS + 1)


def test_subject_i_of_the_sorted_ones_is_in_fold_i_mod_ten():
    subjects = [f"S{number:03d}" for number in (5, 10, 11, 14, 22, 26, 28, 29, 32, 34, 35, 37)]
    shuffled = np.random.default_rng(0).permutation(subjects * 3).tolist()
    assert folds_of(part([0] * 36, shuffled)).tolist() == [subjects.index(name) % 10 for name in shuffled]


@given(people(), st.randoms(use_true_random=False))
def test_folds_depend_on_the_subjects_alone(data, random):
    order = list(range(len(data)))
    random.shuffle(order)
    assert folds_of(data.take(np.array(order))).tolist() == folds_of(data)[order].tolist()
    copy = listing(all=data)
    assert rows(copy, "test", seed=1, fold=2) == rows(copy, "test", seed=2, fold=2)


def test_people_in_one_photograph_stay_together_where_the_first_of_them_belongs():
    subjects, groups = ["a", "b", "c", "c", "d"], ["p1", "p1", "p2", "p3", "p3"]
    assert folds_of(part([0] * 5, subjects, groups)).tolist() == [0, 0, 1, 1, 1]


def test_the_default_fold_is_the_first():
    data = listing(all=part([0] * 12, "abcdefghijkl"))
    assert rows(data, "test") == rows(data, "test", fold=1) == {0, 10}


@pytest.mark.parametrize("fold", [0, -1, 11])
def test_folds_are_one_to_ten(fold):
    with pytest.raises(InputError, match=f"fold is {fold}; allowed: 1 to 10"):
        rows(listing(all=part([0] * 12, range(12))), "test", fold=fold)


def test_fewer_than_ten_subjects_leave_folds_empty_and_say_so():
    data = listing(all=part([0, 1, 2], ["a", "b", "c"]))
    assert rows(data, "test", fold=3) == {2}
    with pytest.raises(InputError, match="fold 4 has no test images; ten folds need 10 subjects, here are 3"):
        rows(data, "test", fold=4)


def test_a_fold_without_subjects_is_an_error_that_says_why():
    with pytest.raises(InputError, match="does not say who is in a picture"):
        rows(listing(all=part([0, 1, 2])), "test", fold=1)
    with pytest.raises(InputError, match="does not say who is in a picture"):
        rows(listing(train=part([0, 1]), test=part([0, 1])), "test", fold=1)


def test_a_fold_of_official_parts_is_an_error():
    people = part([0, 1], ["a", "b"])
    with pytest.raises(InputError, match="official parts"):
        rows(listing(train=people, test=people), "test", fold=1)


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
    if sum(rarest in group for group in groups) < 2:
        return
    off = cut(data, np.arange(len(data)), TEST_FRACTION, seed)
    assert abs(off[data.labels == rarest].sum() - TEST_FRACTION * totals[rarest]) <= 4


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


def test_the_manifest_names_subjects_images_and_absent_classes_of_every_fold():
    data = part([0, 0, 1, 2] * 11 + [0, 1], [f"S{i:02d}" for i in range(11) for _ in range(4)] + ["S11", "S11"])
    about = json.loads(json.dumps(manifest(listing(all=data))))
    assert list(about) == [str(fold) for fold in range(1, 11)]
    assert about["1"] == {
        "subjects": ["S00", "S10"],
        "images": {"happiness": 4, "sadness": 2, "fear": 2},
        "absent": [],
    }
    assert about["2"]["images"] == {"happiness": 3, "sadness": 2, "fear": 1}
    assert sum(n for fold in about.values() for n in fold["images"].values()) == len(data)


def test_there_is_no_manifest_where_there_are_no_folds():
    assert manifest(listing(train=part([0, 1]))) is None
    assert manifest(listing(all=part([0, 1]))) is None


def test_a_fold_that_lacks_a_class_is_named():
    copy = listing(all=part([2] * 9 + [0, 1], [*range(10), 9]))  # nobody but subject 9 shows anything but fear
    about = manifest(copy)
    assert about["10"]["absent"] == ["fear"]
    for fold, split, line in (
        (10, "test", "fold 10 has no fear: mean accuracy is over the classes present"),
        (9, "val", "fold 10 has no fear: mean accuracy is over the classes present"),
        (None, "test", "fold 1 has no happiness and no sadness: mean accuracy is over the classes present"),
    ):
        chosen = rows_of(copy, split, seed=0, fold=fold, name="drawn")[1]
        assert absences(copy, copy.parts["all"].labels[chosen], split, fold) == (line,)
    assert absences(copy, np.array([0, 1]), "train", 1) == ()
    assert absences(copy, np.array([0, 1, 2]), "test", 1) == ()


def test_an_official_part_that_lacks_a_class_is_named():
    copy = listing(train=part([0, 1, 2]), test=part([0, 1]))
    assert absences(copy, np.array([0, 1]), "test", None) == (
        "the test split has no fear: mean accuracy is over the classes present",
    )


def test_no_group_of_a_sequence_is_cut_where_every_subject_shows_every_class():
    """Oulu-CASIA's shape without its subjects: 480 sequences of three frames."""
    data = part(np.repeat(np.arange(480) % 3, 3), groups=np.repeat(np.arange(480), 3))
    off = cut(data, np.arange(1440), TEST_FRACTION, 0)
    assert off.reshape(480, 3).all(1).sum() * 3 == off.sum()
    assert np.bincount(data.labels[off]).tolist() == [96, 96, 96]
