"""A run on disk: whole files or none, and metrics that can be cut back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evensphere.errors import InputError
from evensphere.rundir import RunDir


def test_metrics_are_appended_and_cut_back(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.read_metrics() == []
    run.append_metrics({"step": 0})
    size = run.metrics_size()
    run.append_metrics({"step": 1})
    assert [event["step"] for event in run.read_metrics()] == [0, 1]
    run.truncate_metrics(size)
    assert [event["step"] for event in run.read_metrics()] == [0]
    with run.metrics_file.open("a") as file:
        file.write('{"step": 1, "lo')
    assert [event["step"] for event in run.read_metrics()] == [0], "a line cut short by a kill is left out"


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    for step in (5, 10, 15, 20, 1_000_000_000):
        run.checkpoint_file(step).touch()
    (run.checkpoints / "step-000000030.pt.part").touch()
    assert run.checkpoint_steps() == [5, 10, 15, 20, 1_000_000_000]
    run.prune_checkpoints(keep=2, others=(10,))
    assert run.checkpoint_steps() == [10, 20, 1_000_000_000]


def test_skipped_files_survive_strange_names(tmp_path: Path) -> None:
    run, skipped = RunDir(tmp_path), [('a,"b"\nc.jpg', "cut off"), ("plain.png", "not an image, at all")]
    run.write_skipped(skipped)
    assert run.read_skipped() == skipped


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        RunDir.existing(tmp_path)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        RunDir.existing(tmp_path).read_recipe()


# Takes a run and begins a worker, as a data loader does: a child that has all its parent had open
HOLDER = """
import os, sys, time
from evensphere.rundir import RunDir
lock = RunDir(sys.argv[1]).lock()
if not os.fork():
    print(os.getpid(), flush=True)  # by now it has let go of what it must not keep
time.sleep(600)
"""


def test_a_run_belongs_to_one_process_until_that_dies(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(InputError, match="in use by another process"):
            run.lock()
        holder.kill()
        holder.wait()
        (run.checkpoints / "step-000000003.pt.1-2.part").touch()
        with run.lock():  # at once, though its worker still lives
            assert not list(run.path.rglob("*.part")), "what it left half written goes"
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.kill()
        holder.stdout.close()
        holder.wait()


def test_a_beginning_that_was_cut_short_is_forgotten(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    run.checkpoint_file(12).touch()
    run.append_metrics({"step": 0})
    run.begin_anew()
    assert run.checkpoint_steps() == []
    assert run.read_metrics() == []


def test_a_run_is_free_again_after_the_block(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.create()
    held = run.lock()
    with held:
        pass
    with run.lock():  # though `held` is still there
        assert (tmp_path / ".lock").exists()


def test_a_beginning_that_was_cut_short_leaves_no_images(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.create()
    run.write_json(run.images_file, {"images": ["a", "b"]})
    run.best_file.touch()
    run.begin_anew()
    assert not run.images_file.exists()
    assert not run.best_file.exists()
