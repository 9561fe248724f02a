"""Folders of runs: two runs never share one, a kill leaves no claim, and a failed start leaves nothing."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_fast.errors import InputError
from fer_fast.train.folder import LOCK, claimed, fresh_folder, latest_folder, refuse_results
from fer_fast.written import write_text

HOLD = """
import sys
from pathlib import Path
from fer_fast.train.folder import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path / "out" until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_is_held_by_one_and_a_kill_lets_go(holder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"another run is writing in .*out; choose another --out"), claimed(out):
        raise AssertionError
    assert out.is_dir()
    holder.kill()
    holder.wait()
    assert os.listdir(out) == [LOCK]
    with claimed(out):
        (out / "a").touch()
    assert os.listdir(out) == ["a"]


def test_a_failed_start_leaves_only_what_was_there(tmp_path):
    (tmp_path / "mine").mkdir()
    for out in (
        tmp_path / "mine",
        tmp_path / "mine" / "out",
        tmp_path / "new" / "out",
        fresh_folder("quick", tmp_path / "runs"),
    ):
        with pytest.raises(InputError, match="no such"), claimed(out):
            raise InputError("no such dataset")
        assert os.listdir(tmp_path / "mine") == []
    assert os.listdir(tmp_path) == ["mine"]


def test_runs_begun_at_once_get_folders_of_their_own(tmp_path):
    (tmp_path / "quick-3").mkdir()
    (tmp_path / "quick-x").mkdir()
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: fresh_folder("quick", tmp_path), range(32)))
    assert sorted(folders, key=lambda folder: int(folder.name[6:])) == [tmp_path / f"quick-{n}" for n in range(4, 36)]
    assert latest_folder("quick", tmp_path) == tmp_path / "quick-35"
    with pytest.raises(InputError, match="nothing to resume"):
        latest_folder("ecan", tmp_path)


def test_a_row_of_a_paper_has_one_folder_and_not_three(tmp_path):
    assert fresh_folder("variant/8/resnet18-softmax", tmp_path) == tmp_path / "variant-8-resnet18-softmax-1"
    assert latest_folder("variant/8/resnet18-softmax", tmp_path) == tmp_path / "variant-8-resnet18-softmax-1"


def test_places_that_are_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; a folder is needed"), claimed(tmp_path / "file"):
        raise AssertionError
    with (
        pytest.raises(InputError, match=r"cannot write in the folder .*out: Not a directory"),
        claimed(tmp_path / "file" / "out"),
    ):
        raise AssertionError
    with pytest.raises(InputError, match=r"cannot make the folder .*file: File exists"):
        fresh_folder("quick", tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write in the folder"), claimed(tmp_path / "out"):
        raise AssertionError


def test_a_folder_that_can_no_longer_be_written_hides_no_error(tmp_path):
    """A disk can become read-only under a run: neither the claim nor half a file can be taken away."""
    out = tmp_path / "run"

    def lost():
        with claimed(out):
            shutil.rmtree(out)
            out.touch()  # in its place nothing can be written or taken away, not even by root
            write_text(out / "log.jsonl", "")

    with pytest.raises(InputError, match=r"cannot write .*log\.jsonl: Not a directory"):
        lost()


def test_results_are_not_written_over(tmp_path):
    refuse_results(tmp_path, "metrics.json")
    (tmp_path / "metrics.json").touch()
    with pytest.raises(InputError, match=r"already holds a run \(metrics\.json\)"):
        refuse_results(tmp_path, "checkpoint.safetensors", "metrics.json")
