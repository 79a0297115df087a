"""Progress: one line in a notebook, and without a terminal a line every ten seconds and one at the end."""

import sys
import time
import types

from emofuse_jax.training.progress import show_progress
from emofuse_jax.utils.progress_bar import progress_bar


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress_bar("clips") as update:
        for done in range(1, 5):
            clock.now += 6.0
            update(done, 4)
    assert capsys.readouterr().err.splitlines() == ["clips 2/4", "clips 4/4"]


def test_training_shows_its_rate_its_scores_and_the_time_left(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with show_progress(40, 8, "am_fbp", active=True) as report_progress:
        report_progress(11)
        clock.now += 11.0
        report_progress(22)
        clock.now += 18.0
        report_progress(40, validation_ua=0.5)
    assert capsys.readouterr().err.splitlines() == [
        "am_fbp 22/40  8 clips/s  18 s left",
        "am_fbp 40/40  8 clips/s  validation_ua 0.500  0 s left",
    ]


def test_other_processes_show_nothing(capsys):
    with show_progress(4, 8, "am_fbp", active=False) as report_progress:
        report_progress(4)
    assert capsys.readouterr().err == ""


def test_a_notebook_shows_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    with progress_bar("clips", first=2) as update:
        for done in (3, 4, 5):
            update(done, 5, status="12 clips/s")
    lines = capsys.readouterr().err.rstrip().split("\n")
    assert len(lines) == 1
    assert "100%" in lines[0]
    assert "5/5, 12 clips/s" in lines[0]
