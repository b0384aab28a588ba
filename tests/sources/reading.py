"""Reads the content of files as the sources do."""

from __future__ import annotations

import io

from airflow_provider_regal.sources.csv_rows import read_csv
from airflow_provider_regal.sources.json_lines import read_json_lines
from airflow_provider_regal.sources.marks import ORIGIN_MARK, REJECT_MARK, ROW_MARK

BOM = b"\xef\xbb\xbf"


def json_rows(content):
    return list(read_json_lines(io.BytesIO(content), "a.jsonl"))


def csv_rows(content, **options):
    content = content.encode() if isinstance(content, str) else content
    return list(read_csv(io.BytesIO(content), "a.csv", **options))


def good(rows):
    return [row[ROW_MARK] for row in rows if REJECT_MARK not in row]


def bad(rows):
    """Place -> reason of the rejected rows."""
    return {row[ORIGIN_MARK].partition(" ")[2]: row[REJECT_MARK][0][1] for row in rows if REJECT_MARK in row}
