"""What is trained on, selects and is reported: no person and no group on two sides, every picture reported once."""

import json

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fer_fast.data.dataset import SPLITS
from fer_fast.data.splits import FOLDS, absences, folds_of, manifest, rows_of
from fer_fast.errors import InputError
from listings import listing, part, picked, rows


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
