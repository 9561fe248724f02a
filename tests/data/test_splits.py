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


def rows(copy: Listing, split: str, *, seed: int = 0, fold: int | None = None, **protocol) -> set[int]:
    return set(rows_of(copy, split, seed=seed, fold=fold, name="drawn", **protocol)[1].tolist())


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


NUMBERS = st.sampled_from((3, 5, FOLDS))


@given(people(), NUMBERS)
def test_every_picture_is_reported_in_exactly_one_fold(data, folds):
    copy = listing(all=data)
    reported = [row for fold in range(1, folds + 1) for row in rows(copy, "test", fold=fold, folds=folds)]
    assert sorted(reported) == list(range(len(data)))


@given(people(), NUMBERS, st.data())
def test_splits_of_a_fold_share_no_picture_subject_or_group(data, folds, draw):
    copy, fold = listing(all=data), draw.draw(st.integers(1, folds))
    splits = [rows(copy, split, fold=fold, folds=folds) for split in SPLITS]
    assert all(splits)
    assert set.union(*splits) == set(range(len(data)))
    assert sum(map(len, splits)) == len(data)
    for column in (data.subjects, data.groups):
        sides = [picked(column, split) for split in splits]
        assert len(set.union(*sides)) == sum(map(len, sides))


@given(people(), NUMBERS, st.data())
def test_the_validation_split_is_the_test_split_of_the_next_fold(data, folds, draw):
    copy, fold = listing(all=data), draw.draw(st.integers(1, folds))
    assert rows(copy, "val", fold=fold, folds=folds) == rows(copy, "test", fold=fold % folds + 1, folds=folds)


def test_subject_i_of_the_sorted_ones_is_in_fold_i_mod_ten():
    subjects = [f"S{number:03d}" for number in (5, 10, 11, 14, 22, 26, 28, 29, 32, 34, 35, 37)]
    shuffled = np.random.default_rng(0).permutation(subjects * 3).tolist()
    for folds in (3, 10):
        expected = [subjects.index(name) % folds for name in shuffled]
        assert folds_of(part([0] * 36, shuffled), folds).tolist() == expected
    assert folds_of(part([0] * 36, shuffled)).tolist() == expected


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


@pytest.mark.parametrize(("fold", "folds"), [(0, 10), (-1, 10), (11, 10), (6, 5)])
def test_folds_are_one_to_so_many(fold, folds):
    with pytest.raises(InputError, match=f"fold is {fold}; allowed: 1 to {folds}"):
        rows(listing(all=part([0] * 12, range(12))), "test", fold=fold, folds=folds)


@pytest.mark.parametrize("fold", [None, 1, 3])
def test_there_are_no_more_folds_than_subjects(fold):
    data = listing(all=part([0, 1, 2, 0], ["a", "b", "c", "a"]))
    assert [rows(data, "test", fold=fold, folds=3) for fold in (1, 2, 3)] == [{0, 3}, {1}, {2}]
    with pytest.raises(InputError, match=r"drawn: 10 folds need 10 subjects, here are 3; data\.folds says how many"):
        rows(data, "test", fold=fold)
    with pytest.raises(InputError, match="drawn: 4 folds need 4 subjects, here are 3"):
        rows(data, "train", fold=fold, folds=4)


def test_people_in_one_photograph_make_one_fold():
    data = listing(all=part([0] * 4, "abcd", ["p1", "p1", "p2", "p3"]))
    assert rows(data, "test", fold=1, folds=3) == {0, 1}
    with pytest.raises(InputError, match="4 folds need 4 subjects, here are 3"):
        rows(data, "test", folds=4)


def test_a_fold_without_subjects_is_an_error_that_says_why():
    with pytest.raises(InputError, match="does not say who is in a picture"):
        rows(listing(all=part([0, 1, 2])), "test", fold=1)
    with pytest.raises(InputError, match="does not say who is in a picture"):
        rows(listing(train=part([0, 1]), test=part([0, 1])), "test", fold=1)


def test_a_fold_of_official_parts_is_an_error():
    people = part([0, 1], ["a", "b"])
    with pytest.raises(InputError, match=r"official parts \(train, test\); leave fold out"):
        rows(listing(train=people, test=people), "test", fold=1)
    with pytest.raises(InputError, match=r"official parts \(train, test\); leave folds out"):
        rows(listing(train=people, test=people), "test", folds=5)


@pytest.mark.parametrize("role", ["training", "report"])
@pytest.mark.parametrize(("asked", "named"), [({"fold": 1}, "fold"), ({"folds": 5}, "folds")])
def test_a_fold_of_data_that_is_trained_or_reported_as_a_whole_is_an_error(role, asked, named):
    with pytest.raises(InputError, match=f"reported on another dataset has no folds; leave {named} out"):
        rows(listing(all=part([0] * 12, range(12))), "test", role=role, **asked)


# One dataset to train on, another to report on


@given(people(), st.integers(0, 3))
def test_data_that_is_trained_on_alone_keeps_nothing_back(data, seed):
    for copy in (listing(all=data), listing(train=data, test=part([0]))):
        try:
            train, val = (rows(copy, split, seed=seed, role="training") for split in ("train", "val"))
        except InputError:
            reject()  # one unit
        assert train | val == set(range(len(data)))
        assert min(len(train), len(val)) > 0
        assert not train & val
        for column in (data.subjects, data.groups):
            assert not picked(column, train) & picked(column, val)


def test_official_parts_stay_what_they_are_in_training():
    copy = listing(train=part([0] * 8), val=part([0] * 2), test=part([0] * 3))
    assert (rows(copy, "train", role="training"), rows(copy, "val", role="training")) == (set(range(8)), {0, 1})


@pytest.mark.parametrize(
    ("parts", "taken"),
    [(("train", "val", "test"), "test"), (("train", "test"), "test"), (("all",), "all"), (("train",), "train")],
)
def test_what_is_reported_is_the_official_test_part_or_everything(parts, taken):
    sizes = {"train": 5, "val": 2, "test": 3, "all": 7}
    copy = listing(**{name: part([0] * sizes[name], range(sizes[name])) for name in parts})
    name, chosen = rows_of(copy, "test", seed=3, fold=None, name="drawn", role="report")
    assert (name, chosen.tolist()) == (taken, list(range(sizes[taken])))


def test_parts_without_a_test_part_are_not_reported():
    with pytest.raises(InputError, match="has no test images; it has: train, val"):
        rows(listing(train=part([0]), val=part([1])), "test", role="report")


# What is cut for validation


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


def test_the_manifest_is_of_so_many_folds():
    about = manifest(listing(all=part([0, 1, 2] * 4, range(12))), 4)
    assert {fold: row["subjects"] for fold, row in about.items()} == {
        "1": ["0", "2", "6"],  # of 0, 1, 10, 11, 2, 3, ...
        "2": ["1", "3", "7"],
        "3": ["10", "4", "8"],
        "4": ["11", "5", "9"],
    }


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
    assert absences(copy, np.array([0, 1]), "val", 3, 3) == (
        "fold 1 has no fear: mean accuracy is over the classes present",
    )
    assert absences(copy, np.array([0, 1]), "val", None, role="training") == (
        "the val split has no fear: mean accuracy is over the classes present",
    )
    assert absences(copy, np.array([1, 1]), "train", 1) == ("no image of happiness and none of fear is trained on",)
    assert absences(copy, np.array([0, 1, 2]), "train", 1) == ()
    assert absences(copy, np.array([0, 1]), "test", None, role="report") == ()  # of what training has, elsewhere
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
