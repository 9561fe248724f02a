"""What class numbers mean: official sizes are recognised under every order, and nothing is guessed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_fast.data.labels import CLASSES, SYNONYMS, Order, canonical_class, distance, order_of
from fer_fast.data.lists import editions, meanings, whole
from fer_fast.data.sources import affectnet, expw, rafdb
from fer_fast.errors import InputError

WHERE = Path("copy")
ALPHABETICAL = Order("alphabetical", dict(enumerate(sorted(CLASSES[:7]))))
RAFDB_FROM_0 = rafdb.BASIC.orders[1:]
AFFECTNET_8 = [order for order in affectnet.ORDERS if len(order.classes) == 8]
AFFECTNET_7 = [order for order in affectnet.ORDERS if len(order.classes) == 7]
EXPW = (
    Order("fer2013", dict(enumerate(expw.NUMBERED))),
    Order("affectnet", dict(enumerate(CLASSES[:7]))),
    ALPHABETICAL,
)
# candidates, published sizes, parts that decide
DATASETS = {
    "rafdb": ((*RAFDB_FROM_0, ALPHABETICAL), rafdb.BASIC.published),
    "affectnet8": (AFFECTNET_8, {"train": affectnet.PUBLISHED["train"]}),
    "affectnet7": (AFFECTNET_7, {"train": affectnet.PUBLISHED_7["train"]}),
    "expw": (EXPW, expw.PUBLISHED),
}
CASES = [
    (name, order, part)
    for name, (orders, parts) in DATASETS.items()
    for order in orders
    for part in (*parts, "together")
]


def numbered(order, sizes, change=lambda count: count):
    return {number: change(sizes[name]) for number, name in order.classes.items()}


def sizes_of(name, part):
    published = DATASETS[name][1]
    return editions(published)[-1] if part == "together" else published[part]


@pytest.mark.parametrize(("name", "order", "part"), CASES, ids=lambda value: getattr(value, "name", value))
def test_official_sizes_are_recognised_under_every_order(name, order, part):
    orders, published = DATASETS[name]
    assert order_of(numbered(order, sizes_of(name, part)), orders, editions(published), None, WHERE) is order


@settings(deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 2**32 - 1), st.floats(0, 0.04))
def test_sizes_that_a_few_percent_changed_still_are(case, seed, most):
    name, order, part = case
    orders, published = DATASETS[name]
    generator = np.random.default_rng(seed)
    counts = numbered(order, sizes_of(name, part), lambda count: round(count * (1 + generator.uniform(-most, most))))
    assert order_of(counts, orders, editions(published), None, WHERE) is order


@settings(deadline=None)
@given(st.permutations(CLASSES[:7]))
def test_the_true_order_is_found_among_any_other(names):
    other = Order("other", dict(enumerate(names)))
    true = RAFDB_FROM_0[0]
    sizes = rafdb.BASIC.published["train"]
    found = order_of(numbered(true, sizes), [other, true], [sizes], None, WHERE)
    assert found.classes == true.classes


@settings(deadline=None)
@given(st.lists(st.integers(0, 60_000), min_size=7, max_size=7))
def test_other_sizes_are_an_error_that_names_candidates_and_option(counts):
    sizes = rafdb.BASIC.published["train"]
    counts = dict(enumerate(counts))
    best = min(distance({o.classes[n]: c for n, c in counts.items()}, [sizes]) for o in RAFDB_FROM_0)
    assume(best > 0.05)
    with pytest.raises(InputError) as caught:
        order_of(counts, RAFDB_FROM_0, [sizes], None, WHERE)
    message = str(caught.value)
    assert "\n" not in message
    assert "--data.order" in message
    for part in ("copy", "rafdb-from-0 (0 surprise 1 fear", "affectnet (0 neutral 1 happiness", f"0: {counts[0]}, "):
        assert part in message


def test_equal_classes_decide_nothing():
    counts = dict.fromkeys(range(8), 500)
    with pytest.raises(InputError, match=r"affectnet .*alphabetical"):
        order_of(counts, AFFECTNET_8, editions(affectnet.PUBLISHED), None, WHERE)


def test_orders_that_differ_in_two_like_classes_are_told_by_exact_sizes_only():
    sizes = rafdb.BASIC.published["test"]  # disgust 160, anger 162
    true = RAFDB_FROM_0[0]
    swapped = dict(true.classes) | {2: "anger", 5: "disgust"}
    orders = (true, Order("swapped", swapped))
    assert order_of(numbered(true, sizes), orders, [sizes], None, WHERE) is true
    assert order_of(numbered(orders[1], sizes), orders, [sizes], None, WHERE) is orders[1]
    counts = numbered(true, sizes)
    counts[5] -= 1
    with pytest.raises(InputError, match="swapped"):
        order_of(counts, orders, [sizes], None, WHERE)


def test_orders_that_read_the_numbers_alike_are_no_rivals():
    sizes = affectnet.PUBLISHED_7["train"]
    eight, seven = affectnet.ORDERS[0], affectnet.ORDERS[1]
    found = order_of(numbered(seven, sizes), [seven, eight], [sizes], None, WHERE)
    assert [found.classes[number] for number in range(7)] == list(CLASSES[:7])


def test_an_order_that_is_given_decides_and_an_unknown_one_lists_the_allowed():
    assert order_of({0: 1}, RAFDB_FROM_0, [], "affectnet", WHERE) is RAFDB_FROM_0[1]
    with pytest.raises(InputError, match=r"order is 'fer'; allowed for copy: rafdb-from-0 .*affectnet"):
        order_of({0: 1}, RAFDB_FROM_0, [], "fer", WHERE)


def test_a_number_that_no_order_has_is_too_many():
    sizes = rafdb.BASIC.published["train"]
    counts = numbered(RAFDB_FROM_0[0], sizes)
    assert order_of(counts | {9: 300}, RAFDB_FROM_0, [sizes], None, WHERE) is RAFDB_FROM_0[0]
    with pytest.raises(InputError):
        order_of(counts | {9: 3000}, RAFDB_FROM_0, [sizes], None, WHERE)


def test_distance_counts_a_moved_image_once():
    assert distance({"a": 5, "b": 5}, [{"a": 5, "b": 5}]) == 0
    assert distance({"a": 4, "b": 6}, [{"a": 5, "b": 5}]) == 0.1
    assert distance({"a": 4, "b": 5}, [{"a": 5, "b": 5}]) == 0.1
    assert distance({"a": 5, "b": 5, "c": 2}, [{"a": 5, "b": 5}]) == 0.2
    assert distance({"a": 1}, [{"a": 9}, {"a": 1}]) == 0
    assert distance({}, [{"a": 9}]) == 1


@pytest.mark.parametrize("name", CLASSES)
def test_every_word_for_a_class_is_known_in_any_case_and_spacing(name):
    for word in (name, *SYNONYMS[name]):
        for spelled in (
            word,
            word.upper(),
            word.title(),
            f"  {word} ",
            word.replace(" ", "_"),
            word.replace(" ", "  "),
        ):
            assert canonical_class(spelled) == name


def test_no_word_means_two_classes():
    words = [word for name, synonyms in SYNONYMS.items() for word in (name, *synonyms)]
    assert len(words) == len(set(words))
    assert [canonical_class(word) for word in ("", "happy2", "0", "happy-sad", "unknown")] == [None] * 5


def test_labels_are_names_or_all_numbers_of_an_order():
    orders, sizes = affectnet.ORDERS, editions(affectnet.PUBLISHED)
    assert meanings({"Angry": 1, "happy": 2}, CLASSES, orders, sizes, None, WHERE) == {
        "Angry": "anger",
        "happy": "happiness",
    }
    counts = {f"{n}.0": c for n, c in numbered(affectnet.ORDERS[2], affectnet.PUBLISHED["train"]).items()}
    assert meanings(counts, CLASSES, orders, sizes, None, WHERE)["1.0"] == "contempt"
    for labels in ({}, {"Angry": 1, "hats": 2}, {"Angry": 1, "0": 2}, {"0": 1, "1": 2}, {"-1": 5}):
        assert meanings(labels, CLASSES, orders, sizes, None, WHERE) is None
    assert meanings({"contempt": 1}, CLASSES[:7], (), (), None, WHERE) is None
    assert meanings({"0": 1, "1": 2}, CLASSES, orders, sizes, "alphabetical", WHERE) == {"0": "anger", "1": "contempt"}
    named = meanings({"Happily_Surprised": 1, "sadly  fearful": 2}, rafdb.COMPOUND.classes, (), (), None, WHERE)
    assert list(named.values()) == ["happily surprised", "sadly fearful"]


def test_whole_numbers():
    assert [whole(text) for text in ("0", " 7 ", "4.0", "010")] == [0, 7, 4, 10]
    assert [whole(text) for text in ("", "-1", "4.5", "1e3", "٣", "²", "1" * 20, "nan")] == [None] * 8
