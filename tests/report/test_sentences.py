"""The sentences about known runs, and about every kind of broken one."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
from tests.report.fake_runs import EVIL, Json, make_run, results, said, scores

from evensphere.report import write_report
from evensphere.report.arms import group_arms
from evensphere.report.record import read_run, read_runs
from evensphere.report.sentences import headline, summary, troubles


def test_sentences_of_six_runs(six: list[Path]) -> None:
    text = said(six)
    for sentence in (
        "The encoder was trained with simclr on 1,234 images of digits for 20 epochs (recipe toys): "
        "without GH (3 seeds) and with GH (3 seeds).",
        "Without GH: average 50.2 ± 0.0 %, few 41.0 ± 1.0 %, spread between the groups 7.1 ± 0.0 points "
        "(linear probe).",
        # seed by seed: 3, 4, 2
        "From without GH to with GH: average +0.0 ± 0.0, few +3.0 ± 1.0, spread between the groups +0.0 ± 0.0 points "
        "(mean ± standard deviation over 3 seeds).",
        "With GH, kNN scores 45.0 ± 0.0 % on the trained encoder, 12.0 ± 0.0 % on the same encoder untrained.",
        # exp(1.5 ln 2) = 2.83
        "With GH, the images fill 2.8 ± 0.0 effective regions of 3; the largest region size is 50.0 % of the images, "
        "the smallest 25.00 %.",
    ):
        assert sentence in text, sentence
    assert "class size" not in text
    answer = headline(group_arms(read_runs(six))).replace("\xa0", " ")
    assert answer == "With GH, the rarest classes score 44.0 %, without GH 41.0 %: higher in 3 of 3 seeds."


def test_fewer_than_three_seeds_are_not_evidence(six: list[Path]) -> None:
    two = [folder for folder in six if not folder.name.endswith("2")]
    assert "with 2 seeds; with fewer than 3 this is not yet evidence." in said(two)
    assert headline(group_arms(read_runs(two))).endswith("a hint from 2 seeds, not yet evidence.")
    assert "not yet evidence" not in said(six)


def test_seeds_that_disagree_are_counted(tmp_path: Path) -> None:
    few = {"base": (40, 40, 40), "gh": (50, 39, 38)}
    folders = [
        make_run(tmp_path / f"{arm}{seed}", arm, seed, results(few[arm][seed])) for arm in few for seed in range(3)
    ]
    assert headline(group_arms(read_runs(folders))).endswith("higher in 1 of 3 seeds.")


def test_only_shared_seeds_are_compared(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / arm, arm, seed, results(40)) for arm, seed in (("base", 0), ("gh", 1))]
    assert "no seed was run in both, so no difference is given." in said(folders)


def test_one_arm_alone_is_measured_against_its_common_classes(tmp_path: Path) -> None:
    arms = group_arms([read_run(make_run(tmp_path / "a", eval_json=results(44.26)))])
    assert (
        headline(arms).replace("\xa0", " ")
        == "The rarest classes score 44.3 %, the most common 60.0 %: 15.7 points behind."
    )


def test_training_that_did_not_help_is_said(tmp_path: Path) -> None:
    worse = results(40, knn_untrained=scores(40, average=46.0))
    assert "untrained: training has not helped." in said(make_run(tmp_path / "a", eval_json=worse))


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("eval.json", None, "run: no eval.json, so many, medium and few are not known"),
        ("eval.json", '{"settings": {}}', "run: evaluated without labels"),
        ("eval.json", '{"probe": {"ma', "run: eval.json is damaged and was not used."),
        ("eval.json", "[1, 2]", "run: eval.json is damaged and was not used."),
        ("environment.json", "\x00", "run: environment.json is damaged and was not used."),
        ("recipe.json", "{", "run: the folder is damaged, so this run is left out: recipe.json is damaged"),
        ("recipe.json", '{"name": "x", "seed": 0, "epochs": 3}', "left out: recipe.json has no usable arm."),
        ("recipe.json", '{"name": "x", "arm": "gh", "seed": 0, "epochs": NaN}', "recipe.json has no usable epochs."),
        ("metrics.jsonl", "garbage\n[1]\n{}\n{\"eve", "run: 2 lines of metrics.jsonl could not be read."),
        ("metrics.jsonl", "x\nx", "run: 1 line of metrics.jsonl could not be read."),
        ("metrics.jsonl", '{"event": "step", "step": 9, "loss": NaN}\n', "run: the loss became non-finite at step 9"),
        ("metrics.jsonl", '{"event": "step", "step": 9, "loss": null}\n', "run: the loss became non-finite at step 9"),
        ("skipped.csv", "path,reason\na.jpg,cut\nb.jpg,cut\n", "run: 2 unreadable images skipped (listed below)."),
        ("encoder.safetensors", None, "run: not finished, at epoch 19 of 20."),
    ],
)  # fmt: skip
def test_every_defect_is_one_sentence(tmp_path: Path, file: str, content: str | None, sentence: str) -> None:
    folder = make_run(tmp_path / "run", eval_json=results(40))
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    assert sentence in said(folder)
    assert write_report(folder).is_file()


STOP = {"event": "stopped", "step": 120, "epoch": 12, "reason": "The loss became nan at step 120; try less."}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "run: training stopped. The loss became nan at step 120; try less."),
        ({"reason": EVIL}, f"run: training stopped. {EVIL}"),
        ({"reason": None}, "run: training stopped. No reason was logged."),
    ],
)
def test_the_reason_of_a_stop_is_told(tmp_path: Path, change: Json, sentence: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "encoder.safetensors").unlink()
    steps = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:24]
    bad = {"event": "step", "step": 119, "epoch": 11, "loss": float("nan")}
    (folder / "metrics.jsonl").write_text("".join([*steps, json.dumps(bad), "\n", json.dumps(STOP | change), "\n"]))
    text = said(folder)
    assert sentence in text
    assert "run: not finished, at epoch 11 of 20." in text
    assert "non-finite" not in text, "one stop was told twice"
    assert sentence in unescape(write_report(folder).read_text().split("<h2 id")[1])


def test_what_the_watchdog_saw_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    warning = {
        "event": "warning",
        "kind": "collapse",
        "step": 105,
        "epoch": 10,
        "value": 0.01,
        "sentence": f"all {EVIL}",
    }
    events = [
        {"event": "skipped", "step": 3, "epoch": 0, "reason": "the loss became nan"},
        {"event": "skipped", "step": 4, "epoch": 0, "reason": "pixels are not finite"},
        warning,
        {"event": "recovered", "kind": "collapse", "step": 150, "epoch": 15, "value": 0.5},
        warning | {"step": 180, "epoch": 18},
        {"event": "warning"},
    ]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    text = said(run)
    assert "run: 2 steps left out, the first (3) because the loss became nan." in text
    assert f"run: warning: from epoch 10.5 to epoch 15.0, all {EVIL}." in text
    assert f"run: warning: from epoch 18.0 to the end, all {EVIL}." in text
    assert "run: warning: of an unknown kind." in text


def test_a_sound_run_needs_no_caution(tmp_path: Path) -> None:
    records = [read_run(make_run(tmp_path / "a", eval_json=results(40)))]
    assert "Please note" not in summary(records, group_arms(records))


def test_a_recipe_with_only_its_required_keys_is_enough(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "old", "arm": "mine", "seed": 3, "epochs": 2}))
    assert "The encoder was trained on images for 2 epochs (recipe old): mine (1 seed)." in said(tmp_path)
    assert write_report(tmp_path).is_file()


WARNING = {"event": "warning", "kind": "collapse", "step": 150, "sentence": "all alike, so it is collapsing; try less"}


def test_a_run_that_collapsed_says_so_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", eval_json=results(40))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(WARNING) + "\n")
    (said_first,) = troubles([read_run(run)])
    assert said_first.startswith("run has collapsed (all alike, so it is collapsing). Do not use its encoder")
    assert said_first in unescape(write_report(run).read_text().split('id="summary"')[0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "recovered", "kind": "collapse", "step": 190}) + "\n")
    assert troubles([read_run(run)]) == [], "it has recovered"
    finding = {"name": "collapse", "title": "?", "level": "alarm", "sentence": "In one point.", "advice": ""}
    (run / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    assert troubles([read_run(run)])[0].startswith("run has collapsed (In one point).")


def test_a_run_cut_short_says_so_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "encoder.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:14]))
    assert troubles([read_run(run)]) == [
        "run is not finished: it was cut short, or still runs, at epoch 6 of 20, so nothing is final."
    ]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(STOP) + "\n")
    assert troubles([read_run(run)]) == ["run was stopped at epoch 6 of 20, so nothing is final."]
    assert troubles([read_run(make_run(tmp_path / "sound"))]) == []
