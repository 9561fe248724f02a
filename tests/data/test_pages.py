"""Every dataset has a page that says all it should, and whose commands, options and numbers are true."""

import inspect
import re
import shlex
from importlib import resources

import pytest

from fer_fast.cli import about as about_command
from fer_fast.cli import data as data_command
from fer_fast.cli import train as train_command
from fer_fast.cli.about import about, page
from fer_fast.cli.parser import Parser
from fer_fast.data import DATASETS, Wanted
from fer_fast.errors import InputError
from fer_fast.train.config import DataConfig

SECTIONS = ("Get it", "Licence", "On disk", "Train", "Checked", "In papers", "Options")


def sections(name):
    return dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)+)", page(name), re.MULTILINE))


def commands(name):
    blocks = re.findall(r"^```\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def test_there_is_one_page_a_dataset():
    files = {path.name for path in resources.files("fer_fast.data").joinpath("pages").iterdir()}
    assert files == {f"{name}.md" for name in DATASETS}


@pytest.mark.parametrize("name", DATASETS)
def test_a_page_has_every_section_in_order_and_none_is_empty(name):
    assert page(name).startswith(f"# {name}: ")
    assert tuple(sections(name)) == SECTIONS
    assert all(text.strip() for text in sections(name).values())
    assert max(len(line) for line in page(name).splitlines() if not line.startswith("|")) <= 120


@pytest.mark.parametrize("name", DATASETS)
def test_its_commands_parse_and_train_on_it(name, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(train_command, "train", lambda config, out, **_: trained.append(config))
    monkeypatch.setattr(train_command, "print_metrics", lambda metrics: None)
    checked = []

    def check(root, **_):
        checked.append(root)
        raise InputError("parsed")

    monkeypatch.setattr(data_command, "check", check)
    for action, *rest in commands(name):
        if action == "train":
            train_command.run(rest)
        else:
            assert action == "data"
            with pytest.raises(InputError, match="parsed"):
                data_command.run(rest)
    assert trained
    assert {config.dataset for config in trained} == {name}
    needs_root = DATASETS[name].needs_root
    assert {config.root for config in trained} == {"DIR" if needs_root else None}
    assert checked == (["DIR"] if needs_root else [])


@pytest.mark.parametrize("name", DATASETS)
def test_its_options_are_those_of_its_reader(name):
    info = DATASETS[name]
    general = {"root", "split", "seed", *Wanted.__dataclass_fields__}
    own = set(inspect.signature(info.read or info.draw).parameters) - general
    text = sections(name)["Options"]
    assert set(re.findall(r"^- `(\w+)`:", text, re.MULTILINE)) == own
    assert ("order" in inspect.signature(info.read or info.draw).parameters) == ("`--data.order`" in text)
    assert text.startswith(("By `--data.options", "None of its own."))
    if own:
        (example,) = re.findall(r"By `--data\.options \"\{([\w-]+): \{(\w+):", text)
        assert example[0] == name
        assert example[1] in own


@pytest.mark.parametrize("name", DATASETS)
def test_the_options_it_mentions_exist(name):
    known = set(Wanted.__dataclass_fields__) | set(DataConfig.__dataclass_fields__)
    assert set(re.findall(r"--data\.(\w+)", page(name))) <= known


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if "passed on" in info.licence])
def test_a_licence_that_forbids_passing_on_says_so_on_the_page(name):
    assert "must not be passed on" in sections(name)["Licence"]


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if info.published])
def test_published_numbers_of_images_are_on_the_page(name):
    words = " ".join(page(name).split())
    for sizes in DATASETS[name].published.values():
        assert f"{sum(sizes.values()):,}".replace(",", " ") in words


def test_about_prints_the_page(capsys):
    assert about("mmi") == 0
    assert capsys.readouterr().out == page("mmi")


def test_about_without_a_name_lists_the_datasets(capsys):
    assert about(None) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in DATASETS)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(InputError, match=r"ckplsu.*ckplus"):
        about("ckplsu")


@pytest.mark.parametrize(("argv", "name"), [(["about"], None), (["about", "ckplus"], "ckplus")])
def test_the_action_takes_a_name_or_none(argv, name):
    parser = Parser(prog="fer-fast data")
    about_command.add_about(parser.add_subparsers(dest="action", required=True))
    assert parser.parse_args(argv).name == name
