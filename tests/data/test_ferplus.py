"""FER+: the rules that make a class of ten votes, and the join of votes and images."""

import csv

import numpy as np
import pytest

from fer2013_trees import COUNTS, NUMBERED, USAGE, png, rows, write_csv, write_folders, write_packed, write_whole
from fer_fast.data import CLASSES, load_dataset
from fer_fast.data.sources import ferplus
from fer_fast.data.sources.ferplus import COLUMNS, read_ferplus
from fer_fast.errors import InputError

HEADER = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
IMAGES = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}

pytestmark = pytest.mark.filterwarnings("ignore:ferplus in")


def microsofts(votes):
    """The mode "majority" of Microsoft's reader, image by image: (name of the class or None)."""
    kept = [0 if vote == 1 else vote for vote in votes]
    best = max(kept)
    if not best > 0.5 * sum(kept):
        return None
    name = HEADER[kept.index(best)]
    return None if name in ("unknown", "NF") else name


def most(votes):
    name = HEADER[votes.index(max(votes))]
    return None if name in ("unknown", "NF") else name


def votes_of(split):
    """Ten votes an image, most of them for its class; of every sixth for no face, of every seventh for anything."""
    rng = np.random.default_rng(10 + list(COUNTS).index(split))
    votes = []
    for i, (label, _) in enumerate(rows(split)):
        shares = np.full(10, 0.04 if i % 7 else 1.0)
        shares[HEADER.index(NUMBERED[label] if i % 6 else "NF")] += 0.6
        votes.append(rng.multinomial(10, shares / shares.sum()).tolist())
    return votes


def write_votes(root, named=True, splits=tuple(COUNTS), **form):
    lines = [
        (USAGE[split], *((f"fer{99 - i:07d}.png" if i % 3 else "",) if named else ()), *votes)
        for split in splits
        for i, votes in enumerate(votes_of(split))
    ]
    return write_csv(root / "fer2013new.csv", ("Usage", *(("Image name",) if named else ()), *HEADER), lines, **form)


def write_image_form(root, names="fer{:07d}.png"):
    for split, folder in IMAGES.items():
        lines = []
        for i, ((_, image), votes) in enumerate(zip(rows(split), votes_of(split), strict=True)):
            lines.append((names.format(i), "(0, 0, 48, 48)", *votes))
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / names.format(i)).write_bytes(png(image))
        write_csv(root / folder / "label.csv", lines[0], lines[1:])


def expected(split, rule):
    return {
        (name, image.tobytes())
        for (_, image), votes in zip(rows(split), votes_of(split), strict=True)
        if (name := rule(votes)) is not None
    }


def contents(root, split, **options):
    dataset = load_dataset("ferplus", root, split=split, image_size=48, **options)
    assert dataset.classes == CLASSES
    return {(CLASSES[y], x.numpy().tobytes()) for x, y in zip(dataset.images, dataset.labels.tolist(), strict=True)}


LAYOUTS = {
    "beside fer2013.csv": lambda root: (write_votes(root), write_whole(root)),
    "beside icml_face_data.csv": lambda root: (write_votes(root), write_whole(root, "icml_face_data.csv")),
    "without names": lambda root: (write_votes(root, named=False), write_whole(root)),
    "with a BOM": lambda root: (write_votes(root, encoding="utf-8-sig"), write_whole(root)),
    "the packed csv": lambda root: (write_votes(root), write_packed(root)),
    "in folders of their own": lambda root: (write_votes(root / "FERPlus-master"), write_whole(root / "fer2013")),
    "images called after their row": lambda root: (
        write_votes(root),
        write_folders(root / "images", {"train": "train", "val": "validation", "test": "train"}, "{number}.png"),
    ),
    "image form": write_image_form,
    "Microsoft's repository": lambda root: (write_votes(root), write_image_form(root / "data")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(layout, tmp_path):
    LAYOUTS[layout](tmp_path)
    for split in ("train", "test"):
        assert contents(tmp_path, split) == expected(split, microsofts)
    assert contents(tmp_path, "val", labels="argmax") == expected("val", most)


def test_the_rules_are_those_of_the_page():
    rng = np.random.default_rng(0)
    votes = rng.multinomial(10, rng.dirichlet(np.full(10, 0.3), 5000)[0], 3)
    votes = np.concatenate([votes, *(rng.multinomial(10, p, 2) for p in rng.dirichlet(np.full(10, 0.4), 3000))])
    names = {-1: None, -2: None} | dict(enumerate(CLASSES))
    for rule, one in (("majority", microsofts), ("argmax", most), ("distribution", most)):
        assert [names[label] for label in ferplus._RULES[rule](votes).tolist()] == [one(v) for v in votes.tolist()]


@pytest.mark.parametrize(
    ("votes", "majority", "argmax"),
    [
        ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], "neutral", "neutral"),
        ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], None, "neutral"),  # half is not more than half; the first of equals
        ([3, 0, 1, 1, 1, 1, 1, 1, 1, 0], "neutral", "neutral"),  # all but one class have single votes
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None, "neutral"),
        ([2, 2, 0, 0, 0, 0, 0, 0, 6, 0], None, None),  # unknown
        ([4, 0, 0, 0, 0, 0, 0, 0, 3, 3], None, "neutral"),  # the votes for unknown and no face count
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None, None),
        ([0, 0, 0, 0, 0, 0, 0, 9, 0, 0], "contempt", "contempt"),  # nine votes
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], None, None),
    ],
)
def test_single_votes(votes, majority, argmax):
    for rule, name in (("majority", majority), ("argmax", argmax)):
        label = int(ferplus._RULES[rule](np.array([votes]))[0])
        assert (CLASSES[label] if label >= 0 else None) == name


def test_soft_labels_are_the_shares_of_eight_classes(tmp_path):
    write_votes(tmp_path)
    write_whole(tmp_path)
    for rule in ("majority", "argmax"):
        assert load_dataset("ferplus", tmp_path, labels=rule).votes is None
    dataset = load_dataset("ferplus", tmp_path, labels="distribution")
    assert dataset.votes.shape == (len(dataset), 8)
    told = {image.tobytes(): votes for (_, image), votes in zip(rows("train"), votes_of("train"), strict=True)}
    for image, shares in zip(dataset.images, dataset.votes, strict=True):
        votes = dict(zip(HEADER, told[image.numpy().tobytes()], strict=True))
        eight = np.array([votes[name] for name in CLASSES])
        np.testing.assert_allclose(shares.numpy(), eight / eight.sum(), rtol=1e-6)


def test_what_is_left_aside_is_counted(tmp_path):
    write_votes(tmp_path)
    write_whole(tmp_path)
    everything = [votes for split in COUNTS for votes in votes_of(split)]
    for rule, one in (("majority", microsofts), ("argmax", most)):
        listing = read_ferplus(tmp_path, labels=rule)
        assert sum(map(len, listing.parts.values())) == sum(one(votes) is not None for votes in everything)
        assert listing.ignored.total() == sum(one(votes) is None for votes in everything) > 0
    assert "train has 21 rows of votes where 28709 were published" in listing.problems
    kept = sum(most(votes) is not None for votes in votes_of("test"))
    assert f"test has {kept} images by argmax where 3546 were published" in listing.problems


def test_an_unknown_rule(tmp_path):
    with pytest.raises(InputError, match="labels is 'mean'; allowed: majority, argmax, distribution"):
        load_dataset("ferplus", tmp_path, labels="mean")


def test_votes_of_rows_in_another_order_are_refused(tmp_path):
    path = write_votes(tmp_path)
    write_whole(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:22], lines[1], *lines[22:]]))  # the training rows moved by one
    with pytest.raises(InputError, match=r"agree with only \d+% of the labels of fer2013\.csv, so that is in another"):
        load_dataset("ferplus", tmp_path)


@pytest.mark.parametrize("broken", ["a row less", "another usage"])
def test_tables_that_do_not_fit_each_other_are_refused(broken, tmp_path):
    path = write_votes(tmp_path)
    write_whole(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1] if broken == "a row less" else [*lines[:-1], lines[1]]))
    with pytest.raises(InputError, match=r"rows cannot be joined with the 35 pictures of fer2013\.csv"):
        load_dataset("ferplus", tmp_path)


def test_folders_whose_names_are_no_rows_cannot_be_joined(tmp_path):
    write_votes(tmp_path)
    with pytest.raises(InputError, match=r"fer2013new\.csv holds votes only; put fer2013\.csv beside it"):
        load_dataset("ferplus", tmp_path)
    write_folders(tmp_path, {"train": "train", "val": "test", "test": "test"}, "{usage}_{number}7.png")
    with pytest.raises(InputError, match=r"(do not tell their row|another order).*put fer2013\.csv") as caught:
        load_dataset("ferplus", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("Training", "x.png", 5, 5, 0, 0, 0, 0, 0, 0, 0, -1), "votes are '5, 5, 0, 0, 0, 0, 0, 0, 0, -1'"),
        (("Training", "x.png", 11, 0, 0, 0, 0, 0, 0, 0, 0, 0), "needed: ten numbers from 0 to 10"),
        (("Training", "x.png", 5, 5), "votes are '5, 5, , , "),
        (("Secret", "x.png", 5, 5, 0, 0, 0, 0, 0, 0, 0, 0), "Usage is none of Training, PublicTest, PrivateTest"),
    ],
)
def test_a_corrupt_row_is_named(row, message, tmp_path):
    path = write_votes(tmp_path)
    write_whole(tmp_path)
    lines = list(csv.reader(path.read_text().splitlines()))
    write_csv(path, lines[0], [*lines[1:3], row, *lines[4:]])
    if row[0] == "Secret":  # the rows of fer2013.csv say otherwise
        with pytest.raises(InputError, match="cannot be joined"):
            load_dataset("ferplus", tmp_path)
    else:
        with pytest.raises(InputError, match="line 4: votes are"):
            load_dataset("ferplus", tmp_path)
        assert message in read_ferplus(tmp_path).faults[0]


def test_a_table_without_a_column(tmp_path):
    write_csv(tmp_path / "fer2013new.csv", ("Usage", *HEADER[:-1]), [("Training", *[1] * 9)])
    write_whole(tmp_path)
    with pytest.raises(InputError, match="line 2: no column 'nf'; needed: Usage, neutral"):
        load_dataset("ferplus", tmp_path)


def test_hostile_lists_of_the_image_form(tmp_path):
    write_image_form(tmp_path)
    table = tmp_path / "FER2013Train" / "label.csv"
    outside = (tmp_path / "outside.png").write_bytes(png(rows("val")[0][1]))
    assert outside
    votes = [10, *[0] * 9]
    whole = "(0, 0, 48, 48)"
    with table.open("a", newline="") as file:
        csv.writer(file).writerows(
            [
                ("../outside.png", whole, *votes),
                ("fer9999999.png", whole, *votes),
                ("fer0000001.png", whole, *votes),
                ("fer0000002.png", whole, 1),
                ("fer0000003.png",),
                (),
            ]
        )
    (tmp_path / "FER2013Train" / "more.png").write_bytes(b"")
    listing = read_ferplus(tmp_path)
    where = f"{table}: line"
    assert listing.faults == [
        f"{where} 25: votes are '1'; needed: ten numbers from 0 to 10",
        f"{where} 26: votes are ''; needed: ten numbers from 0 to 10",
    ]
    assert "2 of 40 listed pictures are not there, the first: FER2013Train/../outside.png" in listing.problems
    assert "3 pictures are listed twice" in listing.problems
    assert listing.ignored["pictures without votes"] == 1
    assert not any("label" in reason or ".csv" in reason for reason in listing.ignored)


def test_the_repository_without_images(tmp_path):
    write_image_form(tmp_path)
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    with pytest.raises(InputError, match="none of the listed pictures is there"):
        load_dataset("ferplus", tmp_path)


def published_copy(root):
    """Votes and labels, without pixels, of which the majority has the published sizes."""
    votes, labels = [], []
    rows_of_votes = dict(zip(USAGE, (28709, 3589, 3589), strict=True))
    sizes = ferplus.PUBLISHED | {"val": {"neutral": 3199}}
    for split, usage in USAGE.items():
        names = [name for name, count in sizes[split].items() for _ in range(count)]
        names += [None] * (rows_of_votes[split] - len(names))  # half of the votes are no majority
        for name in names:
            ten = [0] * 10 if name else [5, 5, *[0] * 8]
            if name:
                ten[COLUMNS.index(name)] = 10
            votes.append((usage, *ten))
            labels.append((NUMBERED.index(name) if name in NUMBERED else 0, "0", usage))
    write_csv(root / "fer2013new.csv", ("Usage", *HEADER), votes)
    write_csv(root / "fer2013.csv", ("emotion", "pixels", "Usage"), labels)


def test_the_published_sizes_are_no_problem(tmp_path):
    published_copy(tmp_path)
    listing = read_ferplus(tmp_path)
    listing.compare(ferplus.INFO.published)
    assert listing.problems == []
    assert listing.ignored == {"images without a class by majority": 3649 + 390 + 436}
    assert listing.counts()["train"] == {
        "neutral": 8740, "happiness": 7287, "sadness": 3014, "surprise": 3149,
        "fear": 532, "disgust": 119, "anger": 2100, "contempt": 119,
    }  # fmt: skip
    listing = read_ferplus(tmp_path, labels="argmax")
    listing.compare(ferplus.INFO.published)
    assert listing.problems == [
        f"{part} has {kept} images by argmax where {published} were published"
        for part, kept, published in (("train", 28709, 28389), ("val", 3589, 3553), ("test", 3589, 3546))
    ]
