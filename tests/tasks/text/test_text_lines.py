"""Where a text file is cut: between lines, and inside a line only if a held-out part would have none."""

from __future__ import annotations

import random

import pytest

import tasks
from tasks.text import held_out_lines
from tasks.text.files import find_text
from tests.tasks.errors import error_of
from tests.tasks.text.corpus_files import addresses, pages, write_lines, write_text
from tests.tasks.text.corpus_reading import check_resumes, documents

WORDS = " ".join(" ".join(addresses()).split())  # no line end in it


def split_of(path) -> tuple[str, str, str]:
    """The text of each split of one file."""
    by_split = documents(find_text(path, "text"))
    return "".join(by_split["train"]), "".join(by_split["valid"]), "".join(by_split["test"])


def by_lines(text: str) -> tuple[str, str, str]:
    """The text of each split when a line belongs to the split in which its first byte is."""
    parts, read, total = ["", "", ""], 0, len(text.encode())
    for line in text.splitlines(keepends=True):
        parts[(read >= total * 0.9) + (read >= total * (0.9 + 0.05))] += line
        read += len(line.encode())
    return parts[0], parts[1], parts[2]


@pytest.mark.parametrize("seed", range(12))
def test_a_text_with_a_line_in_every_part_is_cut_between_lines_only(tmp_path, seed):
    draw = random.Random(seed)
    lines = [WORDS[n * 700 : n * 700 + draw.randrange(draw.choice((5, 80, 600)))] + "é\n" for n in range(120)]
    path = write_text(tmp_path / "all.txt", "".join(lines))
    expected = by_lines("".join(lines))
    assert all(expected)
    assert split_of(path) == expected
    assert "inside lines" not in find_text(path, "text").key


def test_a_text_on_one_line_is_cut_after_the_next_spaces(tmp_path):
    for size in (1_000, 200_000):
        path = write_text(tmp_path / f"{size}.txt", text := WORDS[:size])
        train, valid, test = split_of(path)
        assert train + valid + test == text
        for cut, fraction in ((len(train), 0.9), (len(train + valid), 0.95)):
            assert cut - 1 == text.index(" ", int(size * fraction))
        assert find_text(path, "text").key["inside lines"] == {path.name: ["test", "valid"]}


def test_without_white_space_the_cut_is_between_two_characters(tmp_path):
    for extra in ("", "a", "ab", "abc"):
        text = extra + "😀" * 1000  # four bytes each
        train, valid, test = split_of(write_text(tmp_path / "all.txt", text))
        assert train + valid + test == text
        for part, fraction in ((train, 0.9), (train + valid, 0.95)):
            assert 0 <= len(part.encode()) - len(text.encode()) * fraction <= 4


def test_a_part_is_not_cut_at_a_space_near_its_end(tmp_path):
    text = "x" * 1890 + " " + "y" * 108 + "\n"  # 2,000 bytes; the spaces are near the ends of both parts
    parts = split_of(write_text(tmp_path / "all.txt", text))
    assert "".join(parts) == text
    assert [len(part) // 10 for part in parts] == [180, 10, 9]


@pytest.mark.parametrize(("at", "splits"), [(96, ["valid"]), (93, ["test"]), (60, ["test", "valid"])])
def test_only_a_part_in_which_no_line_begins_cuts_a_line(tmp_path, at, splits):
    text = f"{WORDS[: at * 100 - 1]}\n{WORDS[: 10_000 - at * 100]}"
    path = write_text(tmp_path / "all.txt", text)
    train, valid, test = split_of(path)
    assert train + valid + test == text
    assert find_text(path, "text").key["inside lines"] == {"all.txt": splits}
    after_space = [text.index(" ", place) + 1 for place in (9000, 9500)]
    expected = {96: (after_space[0], 9600), 93: (9300, after_space[1]), 60: tuple(after_space)}[at]
    assert (len(train), len(train + valid)) == expected


def test_line_ends_of_one_or_two_bytes_give_the_same_cuts(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out_lines, "READ_BYTES", 7)
    text = "".join(f"{n}\n" for n in range(300)) + WORDS[:4000] + "\n"
    cuts = [
        split_of(write_text(tmp_path / f"{n}.txt", text.replace("\n", end)))
        for n, end in enumerate(("\n", "\r\n", "\r"))
    ]
    assert cuts[0] == cuts[1] == cuts[2]
    assert all(cuts[0])


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        ("x" * 1799 + "\n" + "y" * 200, ["test"]),  # a line begins with the first byte of a part
        # lines begin at 1,775 and 1,925 of 2,000 bytes, counted with line ends of one byte
        ("\r\n" * 1000 + "x" * 774 + "\n" + "y" * 149 + "\n" + "z" * 75, ["valid"]),
        ("\r\n" * 1000 + "x" * 774 + "\r" + "y" * 149 + "\r" + "z" * 75, ["valid"]),
        ("\n" * 940 + "x" * 60, ["test"]),
    ],
)
def test_the_first_bytes_of_lines_are_found_exactly(tmp_path, monkeypatch, text, splits):
    for limit in (2**20,) if "\r" in text else (2**20, 0):  # larger files are probed first, by bytes of the file
        monkeypatch.setattr(held_out_lines, "FULL_SEARCH_BYTES", limit)
        path = write_text(tmp_path / f"{limit}.txt", text)
        assert find_text(path, "text").key["inside lines"] == {path.name: splits}


def test_small_texts_of_few_lines_stay_whole_if_others_have_lines_to_hold_out(tmp_path):
    write_text(tmp_path / "a.txt", verse := "one\ntwo\nthree\n")
    write_text(tmp_path / "b.txt", text := "\n".join(pages(200, 50)))
    corpus = find_text(tmp_path, "text")
    train, valid, test = by_lines(text)
    assert documents(corpus) == {"train": [verse, train], "valid": [valid], "test": [test]}
    assert "inside lines" not in corpus.key
    write_text(tmp_path / "b.txt", verse * 2)  # now no file has a line to hold out
    by_split = documents(find_text(tmp_path, "text"))
    assert [len(by_split[split]) for split in ("train", "valid", "test")] == [2, 2, 2]
    write_lines(tmp_path / "c.jsonl", pages(200))  # now there are rows to hold out
    assert "inside lines" not in find_text(tmp_path, "text").key


def test_a_large_text_on_one_line_is_cut_even_if_others_have_lines(tmp_path):
    write_text(tmp_path / "LICENSE.txt", "\n".join(pages(200, 50)))
    write_text(tmp_path / "large.txt", text := WORDS[:1_400_000])
    assert 0.05 * len(text) > held_out_lines.MIN_CUT_BYTES
    assert [len(texts) for texts in documents(find_text(tmp_path, "text")).values()] == [2, 2, 2]


def test_reading_resumes_after_any_block_of_a_text_that_is_cut_inside_a_line(tmp_path):
    short = "".join(f"{n}\n" for n in range(2500))
    path = write_text(tmp_path / "all.txt", f"{short}{WORDS[:60_000]}\n{WORDS[:900]}\n")
    assert all(split_of(path))
    assert find_text(path, "text").key["inside lines"] == {"all.txt": ["valid"]}
    check_resumes(find_text(path, "text"))


def test_a_large_text_of_short_lines_is_not_searched_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(held_out_lines, "FULL_SEARCH_BYTES", 1000)
    read, size_as_read = [], held_out_lines.size_as_read

    def recorded_size(file):
        read.append(file.name)
        return size_as_read(file)

    monkeypatch.setattr(held_out_lines, "size_as_read", recorded_size)
    for name, text in (
        ("lines", "\n".join(pages(900, 40))),
        ("one", WORDS[:40_000]),
        ("late", f"{WORDS[:38_800]}\n{WORDS[:1200]}"),
    ):
        assert ("inside lines" in find_text(write_text(tmp_path / f"{name}.txt", text), "text").key) == (
            name != "lines"
        )
    assert read == ["one.txt", "late.txt"]


def test_a_text_on_one_line_trains(tmp_path):
    task = tasks.get("text")(None, write_text(tmp_path / "text8.txt", WORDS[:20_000]))
    task.prepare()
    splits = task.info().splits
    assert sum(splits.values()) == 20_003  # one end of text per split
    assert 900 < splits["valid"] < 1100
    assert [note for note in task.info().notes if "cut inside a line" in note and "text8.txt" in note]


@pytest.mark.parametrize(("split", "name"), [("valid", "val.txt"), ("test", "test/a.txt"), ("train", "train.txt")])
def test_a_part_whose_files_are_empty_is_reported_with_the_file(tmp_path, split, name):
    for other in {"train.txt", "val.txt", "test/a.txt"} - {name}:
        write_text(tmp_path / other, WORDS[:2000])
    path = write_text(tmp_path / name, "")
    message = error_of(tasks.get("text")(None, tmp_path).load)
    for part in (f"the {split} part", " 0 tokens", str(path), "put more text there"):
        assert part in message
    assert ("leave it out" in message) == (split != "train")
