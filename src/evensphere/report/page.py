"""The page: sentences, figures and tables laid out in one self-contained HTML file.

It loads nothing: plotly is inlined, and a content-security policy allows exactly the scripts in it. Names come
from folders and recipes of unknown origin; jinja escapes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from evensphere.disk import atomic_write, make_folder
from evensphere.errors import InputError
from evensphere.report import tables
from evensphere.report.arms import class_scores, evaluated, group_arms, main_metric
from evensphere.report.figures import all_figures, learnt_runs
from evensphere.report.record import METRICS, RunRecord, read_runs
from evensphere.report.sentences import group_reading, group_rule, headline, recipe_names, summary, troubles
from evensphere.report.sheets import shown_maps
from evensphere.report.wording import listing
from evensphere.rundir import RunDir

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(runs: Sequence[Path] | Path, out: Path | None = None) -> Path:
    """Write the report of one or several run folders and return its path (default: report.html in the first folder).

    One self-contained file that needs no network: 5 MB of plotly, and at most 7 MB of maps of the images. Runs that
    differ only in their seed are averaged; everything else is shown side by side. Raises InputError if a folder is not
    a run.
    """
    records = read_runs(runs)
    out = out or RunDir(records[0].folder).report_file
    write_file(out, render_page(records))
    return out


def write_file(out: Path, content: str | bytes) -> None:
    """Write what a user asked for where the user asked for it. Raises InputError where that is impossible."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; give the name of a file to write.")
    make_folder(out.parent)
    atomic_write(out, content)


def render_page(records: Sequence[RunRecord], live: tuple[str, float] | None = None) -> str:
    """The page as HTML. live: a word for the state of the runs, and after how many seconds the page asks its server
    whether there is another one (see report/live.py); None for a page that stays as it is."""
    arms = group_arms(records)
    metric = main_metric(arms)
    shown = evaluated(arms, metric) if metric else []
    classes = class_scores(arms, metric) if metric else []
    metrics = [metric for metric in METRICS if evaluated(arms, metric)]
    maps = shown_maps(arms)
    scripts = [get_plotlyjs(), (_TEMPLATES / "report.js").read_text()]
    scripts += [(_TEMPLATES / "map.js").read_text()] if maps else []
    scripts += [(_TEMPLATES / "live.js").read_text()] if live else []
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = pages.get_template("report.html.j2").render(
        live=live,
        names=listing(recipe_names(arms)) or records[0].label,
        abstracts=list(dict.fromkeys(str(text) for run in records if (text := run.recipe.get("summary")))),
        troubles=troubles(records),
        headline=headline(arms),
        summary=summary(records, arms),
        arms=arms,
        evaluated=shown,
        harmonized=[arm for arm in arms if any(run.populations for run in arm.runs)],
        group_reading=group_reading(shown, metric) if metric else "",
        group_rule=group_rule(shown) if metric else "",
        figures={name: figure.to_plotly_json() for name, figure in all_figures(arms, metric, classes).items()},
        group_tables=[tables.group_table(arms, metric) for metric in metrics],
        seed_tables=[tables.seed_table(arms, metric) for metric in metrics],
        class_table=tables.class_table(arms, classes),
        curve_table=tables.curve_table(arms),
        learnt=[f"{arm.label}, seed {run.recipe['seed']}" for arm, run in learnt_runs(arms)],
        maps=maps,
        findings={run.label: run.findings for run in records if run.findings},
        recipe_table=tables.recipe_table(arms),
        region_table=tables.region_table(arms),
        run_table=tables.run_table(records),
        skipped_table=tables.skipped_table(records),
        environments={run.label: json.dumps(run.environment, indent=2) for run in records if run.environment},
        style=(_TEMPLATES / "report.css").read_text(),
        scripts=scripts,
        script_hashes=[_content_hash(script) for script in scripts],
    )
    return page.encode("utf-8", "replace").decode()  # file names may hold bytes that are no letters


def _content_hash(script: str) -> str:
    """What a content-security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
