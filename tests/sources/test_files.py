"""Many files are one source."""

from __future__ import annotations

import io

from airflow_provider_regal.sources.files import SourceFile, read_files
from airflow_provider_regal.sources.marks import ORIGIN_MARK, ROW_MARK


def test_files_are_read_one_after_the_other_and_closed():
    opened = []

    def opening(content):
        def open_it():
            opened.append(io.BytesIO(content))
            return opened[-1]

        return open_it

    files = [SourceFile("b", opening(b'{"n": 1}')), SourceFile("a", opening(b'{"n": 2}\n{"n": 3}'))]
    rows = read_files(files, "jsonl")
    assert next(rows)[ROW_MARK] == {"n": 1}
    assert len(opened) == 1
    assert [row[ORIGIN_MARK] for row in rows] == ["a line 1", "a line 2"]
    assert all(stream.closed for stream in opened)
