"""What comes from elsewhere is shown and never obeyed: control characters, markup, HTML; and it holds no secrets."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from suite.boards.board import boards
from suite.boards.markdown import markdown
from suite.boards.terminal import table
from suite.cli import output
from suite.config.identity import digest
from suite.console import SafeConsole, marked
from suite.records.collection import read_all
from suite.safe_text import RedactingStream, cut, markdown_text, one_line, quoted, redacted, safe, visible
from suite.tracking import client, journal
from suite.tracking.store_address import state_key
from tests.suite.records import edited
from tests.test_architecture import ROOT

CONTROLS = [
    *map(chr, (*range(9), *range(11, 32), *range(127, 160))),
    *"\u061c\u200b\u200c\u200d\u200e\u202e\u2028\u2066\ufeff\U000e0041",
]
ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e[red]x[/red] :skull: <script>alert(1)</script> [a](http://b) |`*"


def printed(*things: object, terminal: bool = False) -> str:
    file = io.StringIO()
    SafeConsole(file=file, width=200, force_terminal=terminal).print(*things, soft_wrap=True)
    return file.getvalue()


def dangerous(text: str) -> list[str]:
    return [char for char in text if visible(char) != char]


@pytest.mark.parametrize("char", CONTROLS)
def test_every_control_character_is_shown_not_sent(char):
    assert dangerous(f"a{char}b") == [char]
    for text in (visible(char), printed(char), printed(marked("[bold]{}[/]", f"a{char}b"))):
        assert dangerous(text) == []
    assert visible("a\tb\nc é 日本 😀 α") == "a\tb\nc é 日本 😀 α"


def in_a_table(text: str) -> Table:
    made = Table(title=text, caption=text)
    made.add_column(text)
    made.add_row(text)
    return made


@pytest.mark.parametrize("make", [str, in_a_table, lambda text: marked("[bold]{}[/] and {}", text, text)])
@pytest.mark.parametrize("terminal", [False, True])
def test_text_on_the_console_is_neither_obeyed_nor_interpreted(make, terminal):
    text = re.sub(r"\x1b\[[\d;]*m", "", printed(make(ATTACK), terminal=terminal))  # rich's own styles
    assert dangerous(text) == []
    for part in ("[red]x[/red]", ":skull:", "<script>", "\\x1b]0;title\\x07", "\\x9b31m", "\\u202e"):
        assert part in text


def test_a_value_ends_no_style_and_begins_no_line():
    assert marked("[bold]{}[/] {}", "x\\", "[/] y\nz").plain == "x\\ [/] y z"


def test_markdown_shows_the_text_itself():
    text = markdown_text(ATTACK + "\n# title")
    assert "\n" not in text
    assert dangerous(text) == []
    assert re.search(r"(?<!\\)[`*\[\]|~<>]", text) is None
    assert "&lt;script&gt;" in text
    assert markdown_text("fem (lse=on, d_v=96) my_mixer.py:Mine") == "fem (lse=on, d_v=96) my_mixer.py:Mine"


def attacked_records(runs: Path) -> None:
    """Records of a third party whose every free text is an attack, and a sound one."""
    sound = edited.plain(edited.full_record())
    edited.write(runs / "sound", sound)
    for number, text in enumerate(("<script>x</script>|[red]`", "\u202e<img src=x>", "[bold]b[/bold]", "\x1b[31mred")):
        mixer = f"{text}.py:X"
        made = {**sound, "id": f"attack-{number}", "mixer": mixer, "task": mixer}
        made["config"] = {
            **sound["config"],
            **dict.fromkeys(("mixer", "task"), mixer),
            **{f"{name}_origin": f"{text}.py@1" for name in ("mixer", "task")},
        }
        made["code"] = {**sound["code"], "mixer_origin": f"{text}.py@1", "task_origin": f"{text}.py@1"}
        made["certificate"] = {**sound["certificate"], "mixer": mixer, "task": mixer}
        made |= {"identity": digest(made["config"]), "group": "0" * 64}
        edited.write(runs / f"attack-{number}", made)


@pytest.mark.slow
def test_what_a_record_claims_is_not_obeyed_on_any_board(suite, runs):
    attacked_records(runs)
    for arguments in (["leaderboard"], ["leaderboard", "--markdown"], ["leaderboard", "--json"], ["doctor"]):
        ended = suite(*arguments)
        assert dangerous(ended.out + ended.err) == [], arguments
    for folder in sorted(runs.iterdir()):
        ended = suite("show", folder.name)
        assert dangerous(ended.out + ended.err) == []


def test_a_boards_texts_are_text_in_every_output(runs):
    edited.write(runs / "sound", edited.plain(edited.full_record()))
    [board] = boards(read_all().records)
    object.__setattr__(board.rows[0], "mixer", ATTACK)
    object.__setattr__(board, "task", ATTACK)
    shown = printed(table(board))
    assert "[red]x[/red]" in shown
    assert dangerous(shown + markdown(board)) == []
    assert "<script" not in markdown(board)
    lines = [line for line in markdown(board).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1  # no cell adds a column


def test_json_escapes_control_characters_and_stays_the_same_document(capsys):
    output.print_json({"name": ATTACK, "half": "\ud800", "word": "é"})
    text = capsys.readouterr().out
    assert dangerous(text) == []
    assert json.loads(text) == {"name": ATTACK, "half": "\ud800", "word": "é"}


def test_an_error_message_is_one_line_without_control_characters(suite):
    for arguments in (
        ["run", "--task", ATTACK],
        ["show", ATTACK + "\nforged: line"],
        [ATTACK],
        ["list", "--" + ATTACK],
    ):
        ended = suite(*arguments)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert dangerous(ended.err + ended.out) == []


#: Where text may be written without the safe console, and why.
WRITERS = {
    "suite/cli/app.py": "one_line",
    "suite/cli/output.py": "JSON",
    "suite/cli/commands/boards/leaderboard.py": "Markdown",
    "suite/cli/commands/boards/compare.py": "what the console made",
    "suite/cli/commands/language.py": "generated text",
    "suite/tracking/worker.py": "its log, redacted",
}


def test_nothing_else_writes_to_the_terminal():
    found = set()
    for path in (ROOT / "suite").rglob("*.py"):
        text = path.read_text("utf-8")
        if re.search(r"(?<![.\w])print\(|(?:stdout|stderr|out\.file)\.write\(|(?<!Safe)\bConsole\(", text):
            found.add(str(path.relative_to(ROOT)))
    assert found - {"suite/console.py"} <= set(WRITERS)


SECRET = "pa55-W0rd/ü"
ADDRESSES = (
    f"https://user:{SECRET}@host:5000/path",
    "postgresql://user:pa55%2DW0rd%2F%C3%BC@host/db",
    f"http://host/path?password={SECRET}&x=1",
    f"http://host/?api_key={SECRET}",
    f"https://{SECRET}@host/",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_addresss_secrets_are_left_out_wherever_they_appear(monkeypatch, address):
    text = f"HTTPError: 500 for url: {address} (user 'user', {SECRET!r} is wrong)"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for shown in (redacted(text), safe(text), one_line(text), printed(text), printed(marked("{}", text))):
        assert SECRET not in shown
        assert "pa55" not in shown
        assert "host" in shown
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "pa55" not in redacted(f"error for {address}")  # known by its form alone


@pytest.mark.parametrize(
    "text",
    [
        "GET https://host/a?sv=1&sig=hunter222%3D failed",
        "GET https://host/a?pwd=hunter222&x=1",
        "GET https://host/a?x=1&auth=hunter222",
        "GET https://host/a?code=hunter222 failed",
        "X-Api-Key: hunter222",
        "password: hunter222",
        '{"access_token": "hunter222", "a": 1}',
        "AccountKey=hunter222;a",
        "client-secret: hunter222",
    ],
)
def test_secrets_are_known_by_the_names_before_them(text):
    assert "hunter222" not in redacted(text)
    assert "***" in redacted(text)


def test_the_signature_of_a_signed_address_is_left_out_wherever_it_appears(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host/a?sv=1&sig=hunter222")
    assert redacted("refused: hunter222") == "refused: ***"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"])
def test_secrets_of_the_environment_are_left_out(monkeypatch, name):
    monkeypatch.setenv(name, "hunter22secret")
    assert redacted("Authorization failed: hunter22secret") == "Authorization failed: ***"
    assert "hunter22secret" not in redacted(f"{name}=hunter22secret, Bearer abcdefghijkl")


@pytest.mark.parametrize("name", ["PWD", "OLDPWD"])
def test_the_working_folder_is_no_secret(monkeypatch, name):
    monkeypatch.setenv(name, "/home/me/work")
    assert redacted("runs are in /home/me/work/runs") == "runs are in /home/me/work/runs"


def test_ordinary_text_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    for text in (
        "tokenizer=bpe, false-or-true, 40 tokens",
        "https://example.org/data?format=csv#part",
        "user@example.org",
        "forward FLOPs per token",
        "bits per token: 2.5091234, tokens: 1234567, token: 12345678",
        "https://example.org/data?keys=ab&monkey=abc",
        "the key: value pairs of the code: abcdefgh",
        "/home/me/token=s/x"[:12],
    ):
        assert redacted(text) == text


def test_logs_and_tracked_texts_hold_no_secrets_and_are_private(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESSES[0])
    monkeypatch.setenv("SUITE_TRACKING", "off")
    (tmp_path / "tracking.log").write_text("old")
    with journal.open_private(tmp_path / "tracking.log") as log:
        RedactingStream(log).write(f"cannot reach {ADDRESSES[0]}")
    assert (tmp_path / "tracking.log").stat().st_mode & 0o777 == 0o600
    assert "pa55" not in (tmp_path / "tracking.log").read_text()
    tracker = client.Tracker(
        home=tmp_path,
        run_dir=tmp_path,
        experiment="e",
        run_name="n",
        params={"a": ADDRESSES[0]},
        tags={"error": ADDRESSES[0]},
        warn=lambda _: None,
    )
    tracker.artifact_text("note.md", ADDRESSES[0])
    tracker.board(ADDRESSES[0], primary_metric="m", ascending=True, columns=[])
    tracker.set_tags({"error": f"for {ADDRESSES[0]}"})
    tracker.finish("FAILED")
    assert "pa55" not in (tmp_path / journal.JOURNAL).read_text()


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_state_of_a_delivery_names_no_secret(tmp_path, address):
    (tmp_path / journal.STATE).write_text(json.dumps({ADDRESSES[2]: {"run_id": "1"}}))
    journal.save_state(tmp_path, state_key(address), journal.Delivered(run_id="2"))
    assert "pa55" not in (tmp_path / journal.STATE).read_text()
    assert journal.load_state(tmp_path, state_key(address)).run_id == "2"


def test_quoted_values_are_cut():
    assert len(quoted("x" * 10**6)) == 80
    assert quoted("short") == "'short'"
    assert "bits" in quoted(10**6000)
    deep: list[object] = []
    for _ in range(10**5):
        deep = [deep]
    assert len(quoted(deep)) <= 80
    assert cut("abc", 3) == "abc"
    assert cut("abcdef", 5) == "ab…ef"
    assert quoted(f"/{'folder/' * 100}recipe.toml").endswith("/recipe.toml'"), "the name of the file is cut off"
    assert os.linesep not in quoted("a\nb")


def test_the_contracts_tables_are_text_on_any_console():
    from backbones.contract.run import CheckResult, render

    file = io.StringIO()
    failed = CheckResult("prefix", "holds", True, "failed", "[red]x[/red]")
    Console(file=file, width=200).print(render("[bold]mine[/bold]", [failed]))
    assert "[red]x[/red]" in file.getvalue()
