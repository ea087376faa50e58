"""What the page leaves behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

pytest.importorskip("gradio")

from querypose.cli.web.server import remove_old_files, wait_for_the_end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_page_so_that_photos_are_removed(tmp_path, number):
    before = signal.getsignal(number)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    timer.start()
    wait_for_the_end(tmp_path)
    timer.join()
    assert signal.getsignal(number) == before


def test_a_page_outlives_its_terminal_under_nohup(tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        timers = [
            threading.Timer(seconds, os.kill, (os.getpid(), number))
            for seconds, number in ((0.1, signal.SIGHUP), (0.5, signal.SIGTERM))
        ]
        start = time.monotonic()
        for timer in timers:
            timer.start()
        wait_for_the_end(tmp_path)
        assert time.monotonic() - start > 0.4
        for timer in timers:
            timer.join()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_uploads_that_were_broken_off_are_removed(tmp_path):
    new, old = tmp_path / "new.jpg", tmp_path / "folder" / "old.jpg"
    old.parent.mkdir()
    for file in (new, old):
        file.touch()
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    remove_old_files(tmp_path, 3600)
    assert new.exists() and not old.exists()
