"""The files of the published boards: equal for equal records, refused when edited, safe for any name."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from suite.boards.board import boards
from suite.boards.domains import across_domains
from suite.boards.page import published, tables
from suite.boards.page.page import addresses, seed_ranges
from suite.errors import UserError
from suite.records import record
from suite.records.collection import read_published
from tests.suite.boards.test_verdicts import BASE, whole_race
from tests.suite.tiny import made_record

pytestmark = pytest.mark.slow  # each trains, or draws boards

EVIL = '<script>alert(1)</script> & "x" \\input{y} %'
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """A folder of records as submissions leave it."""
    folder = tmp_path_factory.mktemp("leaderboards")
    series = [
        made_record("softmax", 0.6 + seed / 100, task="household-power", seed=seed, name=f"power-{seed}")
        for seed in range(3)
    ]
    for made in [*(made for mixer in BASE for made in whole_race(mixer)), *series]:
        target = folder / "entries" / made.mixer / made.id
        target.mkdir(parents=True)
        record.write(target, made).rename(target.parent / f"{made.id}.json")
        target.rmdir()
    return folder


@pytest.fixture(scope="module")
def files(entries):
    found, links = read_published(entries)
    return published.generated(boards(found.records, found.refused), links)


class Page(HTMLParser):
    """Open tags, addresses and the text of tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.cells, self.scripts = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "td" in self.open[-2:]:
            self.cells.append(text)


def test_equal_records_give_equal_files_byte_for_byte(entries, files):
    found, links = read_published(entries)
    assert published.generated(boards(tuple(found.records), found.refused), links) == files


def test_the_command_writes_the_files_and_finds_an_edit(suite, entries, files, tmp_path):
    arguments = ("leaderboard", "--records", str(entries), "--output", str(tmp_path / "site"))
    assert suite(*arguments).code == 0
    site = tmp_path / "site"
    written = {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in site.rglob("*.*")}
    assert written == files
    assert suite(*arguments, "--check").code == 0
    (tmp_path / "site" / "boards.md").write_text(files["boards.md"] + " ", "utf-8")
    ended = suite(*arguments, "--check")
    assert (ended.code, "boards.md" in ended.err) == (2, True)


def test_an_edited_or_missing_file_is_named(files, tmp_path):
    published.write(files, tmp_path)
    published.check(files, tmp_path)
    for name in files:
        path = tmp_path / name
        path.write_text(files[name].replace("0.8", "0.9", 1) + " ", "utf-8")
        with pytest.raises(UserError, match=f"{name} is not what"):
            published.check(files, tmp_path)
        path.unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            published.check(files, tmp_path)
        path.write_text(files[name], "utf-8")


def test_check_without_a_folder_is_refused(suite):
    ended = suite("leaderboard", "--check")
    assert (ended.code, "--output" in ended.err) == (2, True)


def board_pages(files):
    return {name: text for name, text in files.items() if name.startswith("boards/")}


def test_each_page_is_whole_small_and_asks_for_nothing_from_outside(files):
    assert len(board_pages(files)) == 2
    for name, text in {"index.html": files["index.html"], **board_pages(files)}.items():
        page = Page(text)
        assert page.open == [], name
        assert page.scripts == 1, name
        assert len(re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[0]) <= 4096, name
        assert len(text.encode()) < 60_000, name  # of a board with thirty rows: 80 kB
        assert not [address for address in page.addresses if re.match(r"[a-z]+:|//", address)], name
        assert not re.search(r"url\((?!#)|@import", text), name
        assert "prefers-color-scheme: dark" in text, name
    assert {"fem", "softmax", "no-mixing"} <= set(Page(files["index.html"]).cells)


def test_the_first_page_and_each_board_lead_to_all_boards(files):
    wanted = set(board_pages(files))
    assert wanted == {address for address in Page(files["index.html"]).addresses if address.endswith(".html")}
    for name, text in board_pages(files).items():
        led = {address for address in Page(text).addresses if address.endswith(".html")}
        assert led == {"../index.html", *(f"../{other}" for other in wanted - {name})}


def test_boards_of_equal_names_have_pages_of_their_own():
    one = boards([made_record()])[0]
    titles = ["a/B.py:C", "a b py c", "A·B·PY·C", "a b py c d"]
    found = addresses([replace(one, task=title, scale="board") for title in titles])
    assert len({address.lower() for address in found}) == 4
    assert found[0] == "boards/a-b-py-c-board.html"


def test_a_page_of_no_board_is_named(files, tmp_path):
    published.write(files, tmp_path)
    for name in ("old-board.html", "evil.svg", "below/old.HTM"):
        path = tmp_path / "boards" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("", "utf-8")
        with pytest.raises(UserError, match=f"{path.name} is the page of no board"):
            published.check(files, tmp_path)
        published.check(files, tmp_path, whole=False)  # of some boards only
        path.unlink()


def test_an_address_with_signs_that_have_a_meaning_in_one_still_leads_to_its_record():
    one = boards([made_record()])
    name = next(iter(one[0].rows)).first.hash
    made = published.generated(one, {name: "entries/a:b #1%/r.json"})
    [page] = board_pages(made).values()
    assert "../entries/a%3Ab%20%231%25/r.json" in Page(page).addresses


def test_every_row_links_to_an_existing_record_of_its_mixer(entries, files):
    found = [
        (entries / name).parent / address
        for name, text in board_pages(files).items()
        for address in Page(text).addresses
        if address.endswith(".json")
    ]
    assert len(found) == len(BASE) + 1
    assert {record.read(path.resolve()).mixer for path in found} == set(BASE)


def test_the_document_and_the_csv_table_hold_the_same_figures(files):
    document = json.loads(files["board.json"])
    lines = list(csv.DictReader(io.StringIO(files["boards.csv"])))
    rows = [row for board in document for row in board["rows"]]
    assert [float(line["mean"]) for line in lines] == [row["mean"] for row in rows]
    assert [line["mixer"] for line in lines] == [row["mixer"] for row in rows]
    at = next(i for i, row in enumerate(rows) if row["difference"])
    assert lines[at]["difference.p_adjusted"] == str(rows[at]["difference"]["p_adjusted"])


def test_names_of_third_parties_have_no_meaning_in_html_latex_and_csv():
    made = made_record("fem")
    config = made.config.model_copy(update={"mixer": EVIL, "mixer_origin": "theirs.py 0123456789ab"})
    theirs = made.model_copy(update={"mixer": EVIL, "config": config})
    formula = theirs.model_copy(update={"mixer": "=1+1", "config": config.model_copy(update={"mixer": "=1+1"})})
    found = published.generated(boards([made_record(), theirs, formula]), {})
    for name, text in found.items():
        if name.endswith(".html"):
            page = Page(text)
            assert (page.open, page.scripts) == ([], 1), name
            assert (EVIL in "".join(page.cells)) is (name != "index.html"), name  # one run alone has no rank over tasks
    assert r"<script>" not in found["boards.md"]
    line = next(line for line in found["boards.tex"].splitlines() if "alert" in line)
    assert r"\textbackslash{}input\{y\} \%" in line
    names = [line["mixer"] for line in csv.DictReader(io.StringIO(found["boards.csv"]))]
    assert "'=1+1" in names


def test_a_latex_table_closes_what_it_opens_and_has_equally_many_cells(files):
    text = files["boards.tex"]
    for table in text.split(r"\begin{table}")[1:]:
        rows = [line for line in table.splitlines() if line.endswith(r" \\")]
        assert len({line.count(" & ") for line in rows}) == 1
    assert re.findall(r"\\begin\{(\w+)", text).count("tabular") == text.count(r"\end{tabular}") == 2


def test_the_summary_over_tasks_counts_wins_and_mean_ranks(entries):
    found, _ = read_published(entries)
    lines = {line.mixer: line for line in across_domains(boards(found.records))}
    assert lines["fem"].record == (1, 0, 0)
    assert lines["no-mixing"].record == (0, 0, 1)
    assert lines["softmax"].record is None
    assert (lines["softmax"].places, lines["softmax"].mean_rank) == (("1", "2–3"), (1 + 2.5) / 2)
    assert next(iter(lines)) == "softmax"  # on the most boards


def test_a_refused_record_and_other_files_cost_no_board(entries, tmp_path):
    (tmp_path / "a").mkdir()
    record.write(tmp_path / "a", made_record())
    (tmp_path / "board.json").write_text("[]", "utf-8")
    (tmp_path / "entry.json").write_text('{"schema": "mixer-suite/entry/1"}', "utf-8")
    damaged = json.loads((tmp_path / "a" / record.NAME).read_text("utf-8")) | {"seed": 5}
    (tmp_path / "b.json").write_text(json.dumps(damaged), "utf-8")
    (tmp_path / "link.json").symlink_to(tmp_path / "a" / record.NAME)
    found, _ = read_published(tmp_path)
    assert ([made.mixer for made in found.records], [each.path.name for each in found.refused]) == (
        ["softmax"],
        ["b.json"],
    )


def test_formulas_of_spreadsheets_are_text():
    assert [tables._cell(text) for text in ("=A1", "@x", "fem", 1.5, None)] == ["'=A1", "'@x", "fem", 1.5, ""]


def test_runs_without_a_row_are_listed_with_their_reason_and_their_own_seeds(files):
    text = "".join(board_pages(files).values())
    lists = re.findall(r"<li>([^<]*lost on validation to[^<]*)</li>", text)
    assert lists
    for each in lists:
        [count] = re.findall(r"over (\d+) equal seed", each)
        assert each.endswith(f"s0–s{int(count) - 1}"), each


def test_seeds_that_follow_each_other_are_listed_as_a_range():
    assert seed_ranges([7, 0, 2, 1, 9, 10, 100]) == ["s0–s2", "s7", "s9", "s10", "s100"]
    assert seed_ranges([]) == []
