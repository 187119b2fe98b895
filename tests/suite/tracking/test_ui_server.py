"""`suite ui`: a real server is started, its address is printed, and all its processes end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import webbrowser
from typing import Any

import psutil
import pytest

from suite.errors import UserError
from suite.tracking.ui import server as ui_server
from suite.tracking.ui.state import BoardView, board_tags, column_id, ui_url, view_state, views
from tests.suite.tracking.tracked_runs import free_port, mlflow_server, responds, tracker, wait_for

_SERVE = (
    "import sys; from pathlib import Path; from suite.tracking.ui.server import serve; "
    "sys.exit(serve(Path(sys.argv[1]), {port}, task={task!r}))"
)


def state(view: BoardView) -> dict[str, Any]:
    """The state of the only view of a task without boards."""
    [made] = views(view, [])
    return view_state(made)


def test_the_view_is_sorted_by_the_primary_metric_with_the_given_columns():
    view = state(BoardView("test/mse", ascending=True, columns=["tags.mixer", "metrics.test/mse", "params.train.lr"]))
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`test/mse`", True)
    assert view["selectedColumns"] == ["metrics.`test/mse`", "tags.`mixer`", "params.`train.lr`"]
    assert view["columnOrder"] == ["attributes.`Run Name`", *view["selectedColumns"]]
    assert view["columnWidths"].keys() == set(view["columnOrder"])
    assert state(BoardView("test/top1", ascending=False, columns=[]))["orderByAsc"] is False


@pytest.mark.parametrize("column", ["mixer", "tag.mixer", "metrics.", ""])
def test_a_column_of_unknown_kind_is_refused(column):
    with pytest.raises(ValueError, match=r"metrics\.NAME"):
        column_id(column)


def test_a_long_note_is_cut_between_lines_to_mlflows_limit():
    note = "\n".join(f"| row {n} | 0.5 |" for n in range(3000))
    cut = board_tags(note, BoardView("a", True, []))["mlflow.note.content"]
    assert len(cut) < 20_000
    assert all(line == "" or line == "…" or re.fullmatch(r"\| row \d+ \| 0\.5 \|", line) for line in cut.split("\n"))


def test_addresses_do_not_depend_on_a_trailing_slash():
    expected = "http://h:1/base/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=suiteboard"
    assert ui_url("http://h:1/base/", "7") == ui_url("http://h:1/base", "7") == expected


def test_a_port_in_use_is_a_one_line_error(tmp_path):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match=r"port \d+ is in use; choose another") as raised,
    ):
        ui_server.serve(tmp_path, taken.getsockname()[1])
    assert "\n" not in str(raised.value)


def test_without_a_port_option_used_ports_are_skipped(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ui_server, "_FIRST_PORT", port)
        assert port < ui_server._free_port() < port + 100
        monkeypatch.setattr(ui_server, "_PORTS", 1)
        with pytest.raises(UserError, match=r"no free port .* --port"):
            ui_server._free_port()


def test_a_damaged_store_is_a_one_line_error(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is not a database" * 100)
    with pytest.raises(UserError, match=r"^suite ui: sqlite:///mlflow.db is damaged: not a database$"):
        ui_server.serve(tmp_path, None)


def test_an_unreachable_server_is_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=r"127\.0\.0\.1.*no server is running there") as raised:
        ui_server.serve(tmp_path, None)
    assert "secret" not in str(raised.value)


def test_a_task_without_a_board_and_an_empty_store_are_reported(capsys, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    ui_server._show({"sotu": "http://h/1"}, "http://h", "household-power", open_browser=True)
    ui_server._show({}, "http://h", None, open_browser=False)
    ui_server._show(
        {"sotu": "http://h/1", "fashion-mnist": "http://h/2"}, "http://h", "fashion-mnist", open_browser=True
    )
    assert capsys.readouterr().out.splitlines() == [
        "no board of household-power yet (the first run creates it): http://h",
        "no board of any task yet (the first run creates it): http://h",
        "fashion-mnist: http://h/2",
    ]
    assert opened == ["http://h", "http://h/2"]


def _start(home, port, task=None, environment=None):
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE.format(port=port, task=task), str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.slow
def test_the_server_prints_its_boards_and_all_its_processes_end(tmp_path):
    for task in ("sotu", "fashion-mnist"):
        with tracker(tmp_path, f"run-{task}", experiment=task) as tracked:
            tracked.board("a note", primary_metric="test/top1", ascending=False, columns=[])
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    link = re.escape(base) + r"/#/experiments/\d+/runs\?workflowType=machine_learning&viewStateShareKey=suiteboard"
    cases: tuple[tuple[signal.Signals, int, str | None, str], ...] = (
        (signal.SIGINT, 0, None, rf"fashion-mnist: {link}\nsotu: {link}\nPress Ctrl-C to stop.\n"),
        (signal.SIGTERM, 143, "sotu", rf"sotu: {link}\nPress Ctrl-C to stop.\n"),
    )
    for number, code, board, shown in cases:
        process = _start(tmp_path, port, board)
        try:
            wait_for(lambda: responds(f"{base}/health"), "the UI responds")
            printed = "".join(iter(process.stdout.readline, "Press Ctrl-C to stop.\n")) + "Press Ctrl-C to stop.\n"
            assert re.fullmatch(shown, printed)
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
            process.stdout.close()
        assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
        assert not responds(f"{base}/health")


@pytest.mark.slow
def test_with_a_tracking_server_only_its_link_is_printed(tmp_path):
    with tracker(tmp_path) as tracked:
        tracked.board("a note", primary_metric="test/top1", ascending=False, columns=[])
    with mlflow_server(tmp_path, free_port()) as base:
        process = _start(tmp_path / "elsewhere", None, environment={"MLFLOW_TRACKING_URI": base})
        printed, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert re.fullmatch(rf"fashion-mnist: {re.escape(base)}/#/experiments/\d+/runs\?\S+=suiteboard\n", printed)
