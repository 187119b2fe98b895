"""Reports of the bench: pages, plots and results folders."""

from __future__ import annotations

import json
from pathlib import Path

from suite.bench import report, results_folder


def test_the_committed_speed_pages_equal_those_generated_from_their_documents():
    folders = [folder for folder in (Path(__file__).parents[3] / "leaderboards" / "speed").iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert (folder / "README.md").read_text("utf-8") == results_folder.page(results_folder.documents(folder)), (
            folder.name
        )


def test_a_results_folder_gets_documents_plots_and_a_page(suite, tmp_path):
    folder = tmp_path / "speed" / "here"
    ended = suite("bench", "kernels", "--lengths", "8", "--rounds", "2", "--out", str(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "kernels.json", "kernels.png"], ended.err
    page = (folder / "README.md").read_text("utf-8")
    assert page == results_folder.page([json.loads((folder / "kernels.json").read_text("utf-8"))])
    assert "| AFT read | 8 | " in page
    assert "speedup over cumulative sum" in page
    (tmp_path / "file").write_text("")
    refused = suite(
        "bench", "mixers", "--mixer", "no-mixing", "--lengths", "8", "--rounds", "2", "--out", str(tmp_path / "file")
    )
    assert (refused.code, "--out:" in refused.err) == (2, True)


def test_the_report_names_what_ran_in_bf16():
    assert report.implementations_line({"implementations": {"cpu": "c++"}}) == ""
    ran = {"cpu": "c++", "attention": "c++ in fp32", "swiglu": "pytorch"}
    assert report.implementations_line({"implementations": ran}) == "in bf16: attention c++ in fp32, swiglu pytorch"


def test_plots_leave_out_what_does_other_work():
    figures = [{"figure": "mfu", "against": "multiply-add limit"}, {"figure": "speed", "against": "plain"}]
    rows = [{"implementation": name} for name in ("ours", "multiply-add limit", "plain")]
    assert [row["implementation"] for row in report.same_work({"figures": figures, "rows": rows})] == ["ours", "plain"]
