"""Text from the hub: the real clients against a small local server that answers like the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import huggingface_hub.constants
import pytest

from tasks.text import fineweb
from tasks.text.fineweb import FinewebEdu, FinewebOptions
from tasks.text.wikitext import WikiText2, WikiTextOptions
from tests.tasks.storage.hub_server import COMMIT, files_below
from tests.tasks.text.corpus_files import pages, write_fineweb, write_wikitext

CARD = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: data/*/*}]
- config_name: sample-10BT
  data_files: [{split: train, path: sample/10BT/*}]
---
"""
NOWHERE = "http://127.0.0.1:1"
PREPARE = """
import json, sys
import tasks
from tasks.base import DataError
cls = tasks.get(sys.argv[1])
for options in json.loads(sys.argv[2]):
    task = cls(cls.Options(tokenizer="bytes", length=32, **options))
    try:
        task.prepare()
    except DataError as error:
        print(json.dumps(["refused", str(error)]))
    else:
        print(json.dumps([task.fingerprint, cls(task.options).info().splits]))
"""


def prepare(tmp_path, name: str, options: list[dict[str, int]], endpoint: str, **variables: str) -> list[list[Any]]:
    """Prepares a task in a separate process, since the clients read their settings when they are imported."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "SUITE_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    command = [sys.executable, "-c", PREPARE, name, json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_fineweb_is_streamed_and_extended_at_one_commit_then_read_offline(tmp_path, serve):
    name = "HuggingFaceFW/fineweb-edu"
    folder = write_fineweb(tmp_path / "web", pages(6200, 150))
    files = {"README.md": CARD, **files_below(folder), "data/CC-1/train-0.parquet": b"of another config, never read"}
    server = serve({name: files})
    options = [{"tokens": 2_000}, {"tokens": 200_000}]
    prepared = prepare(tmp_path, "fineweb-edu", options, server.endpoint)
    assert [splits["train"] for _, splits in prepared] == [2_000, 200_000]
    for (fingerprint, _), chosen in zip(prepared, options, strict=True):
        local = FinewebEdu(FinewebOptions(tokenizer="bytes", **chosen), folder)
        assert local.fingerprint == fingerprint
    assert not [path for _, path in server.requests if path.endswith("train-0.parquet")]
    server.push({name: {**files, **files_below(write_fineweb(tmp_path / "new", pages(6200, 150)[::-1]))}})
    [[fingerprint, _]] = prepare(tmp_path, "fineweb-edu", [{"tokens": 500_000}], server.endpoint)
    resumed_at_first_commit = FinewebEdu(FinewebOptions(tokenizer="bytes", tokens=500_000), folder)
    assert resumed_at_first_commit.fingerprint == fingerprint
    *again, (refused, reason) = prepare(
        tmp_path, "fineweb-edu", [*options, {"tokens": 640_000}], NOWHERE, HF_HUB_OFFLINE="1"
    )
    assert again == prepared
    assert refused == "refused"
    assert "pass --data-dir DIR" in reason
    assert "\n" not in reason


def test_fineweb_requests_the_newest_commit_once_and_reports_the_one_it_read(tmp_path, monkeypatch, serve):
    """The hub's answers are real; the files of each commit are read from a local folder."""
    monkeypatch.setenv("SUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fineweb, "VALID", 10)
    monkeypatch.setattr(fineweb, "TEST", 10)
    name = "HuggingFaceFW/fineweb-edu"
    server = serve({name: {}})
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    folders = {COMMIT: write_fineweb(tmp_path / "old", pages(400, 150))}
    opened, plain = [], fineweb.WebPages._open

    def open_commit(corpus, commit):
        if corpus.files:
            return plain(corpus, commit)
        opened.append(commit)
        return plain(FinewebEdu(None, folders[commit])._open_corpus(), None)

    monkeypatch.setattr(fineweb.WebPages, "_open", open_commit)
    task = FinewebEdu(FinewebOptions(vocab=300, tokens=2000, length=32))
    assert "hub_commit" not in task.info().extra  # nothing has been read
    assert task.tokenizer.vocab == 300
    server.push({name: {}})
    folders[server.newest] = write_fineweb(tmp_path / "new", pages(400, 150)[::-1])
    task.prepare()
    assert (task.info().extra["hub_commit"], set(opened)) == (COMMIT, {COMMIT})
    later = FinewebEdu(FinewebOptions(vocab=300, tokens=3000, length=32))  # resumes at the same commit
    later.prepare()
    assert (later.info().extra["hub_commit"], set(opened)) == (COMMIT, {COMMIT})
    assert FinewebEdu(later.options).info().extra["hub_commit"] == COMMIT
    other_tokenizer = FinewebEdu(FinewebOptions(tokenizer="bytes", tokens=2000, length=32))
    other_tokenizer.prepare()
    assert other_tokenizer.info().extra["hub_commit"] == server.newest
    local = FinewebEdu(other_tokenizer.options, folders[COMMIT])
    local.prepare()
    assert "hub_commit" not in local.info().extra


@pytest.mark.slow
def test_wikitext_is_downloaded_once(tmp_path, serve):
    folder = write_wikitext(tmp_path / "wiki")
    server = serve({"Salesforce/wikitext": files_below(folder)})
    [[fingerprint, _]] = prepared = prepare(tmp_path, "wikitext2", [{}], server.endpoint)
    assert WikiText2(WikiTextOptions(tokenizer="bytes"), folder).fingerprint == fingerprint
    assert len(server.downloads) == 3
    assert prepare(tmp_path, "wikitext2", [{}], NOWHERE, HF_DATASETS_OFFLINE="1") == prepared
