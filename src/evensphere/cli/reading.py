"""The progress bar of commands that look at every image once."""

from __future__ import annotations

from evensphere.cli.console import plain_console


class Reading:
    """Called with images done and images in all. title: of the bar."""

    def __init__(self, title: str) -> None:
        self.title = title

    def __enter__(self) -> Reading:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn(self.title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=plain_console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("", total=None)
        return self

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
