"""Reading token files: windows at any position, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tasks.text.token_file import TokenFile
from tests.tasks.text.corpus_files import pages, write_rows


def test_windows_equal_the_tokens_of_the_file_and_are_padded_after_its_end(tmp_path):
    values = np.arange(1000, dtype="<u2")
    (tmp_path / "a.bin").write_bytes(values.tobytes() + b"more")
    file = TokenFile(tmp_path / "a.bin", "<u2", 1000)
    windows = file.windows(np.array([0, 37, 995]), 8)
    assert windows.tolist() == [list(range(8)), list(range(37, 45)), [*range(995, 1000), -1, -1, -1]]


PEAK = """
import sys
def peak():  # in MB; getrusage would report the parent process if that is larger
    [line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
"""
MEMORY = f"""{PEAK}
from pathlib import Path
import numpy as np
from tasks.text.token_file import TokenFile
file = TokenFile(Path(sys.argv[1]), "<u2", int(sys.argv[2]))
rng = np.random.default_rng(0)
before = peak()
for _ in range(1500):
    file.windows(rng.integers(0, file.length - 1025, 128), 1025)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_all_of_a_large_file_does_not_fill_the_memory(tmp_path):
    """400 MB of tokens, every page of which is read about once."""
    path = tmp_path / "a.bin"
    with open(path, "wb") as file:
        for _ in range(50):
            file.write(bytes(8 * 2**20))
    command = [sys.executable, "-c", MEMORY, str(path), str(200 * 2**20)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60, done.stdout


BUILD = f"""{PEAK}
from pathlib import Path
import tasks
cls = tasks.get("text")
cls(cls.Options(tokenizer=sys.argv[2]), Path(sys.argv[1])).prepare()
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_building_from_a_corpus_eight_times_as_large_takes_no_more_memory(tmp_path):
    peaks = []
    for times in (1, 8):
        folder = tmp_path / str(times)
        for n in range(times):
            write_rows(folder / f"{n}.parquet", {"text": [f"{n} {page}" for page in pages(4000, 2500)]}, 200)
        environment = {**os.environ, "SUITE_CACHE": str(tmp_path / f"cache{times}")}
        command = [sys.executable, "-c", BUILD, str(folder), "bytes"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 40, peaks  # MB; the text grew by 70
