"""Files as frames, and every unreadable file as one clear line."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.errors import DataError, UsageError
from hyperfeast.ingest import expected_rows, read_batches, read_file

_TEXT = b"Date,Close\n2024-01-02,1.5\n2024-01-03,nil\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", _TEXT),
        ("a.CSV", b"\xef\xbb\xbf" + _TEXT),
        ("a.csv.gz", gzip.compress(_TEXT, mtime=0)),
        ("a.csv", _TEXT.replace(b"\n", b"\r\n")),
    ],
)
def test_csv_is_read_as_text(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert read_file(path).to_dict(as_series=False) == {
        "Date": ["2024-01-02", "2024-01-03"],
        "Close": ["1.5", "nil"],
    }


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"ts": [1, 2], "close": [0.1, None]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").equals(frame)


def test_a_zero_byte_in_a_row_is_that_row_s_business(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1\x00,2\n")
    assert read_file(tmp_path / "a.csv").row(0) == ("1\0", "2")


def _parquet(tmp_path: Path) -> bytes:
    pl.DataFrame({"a": range(100)}).write_parquet(tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", _TEXT, r"expected \.csv, \.csv\.gz or \.parquet"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b" \n\n", "is empty"),
        ("a.csv", b"Date,Close\n", "header and no rows"),
        ("a.csv", "Date,Close\n2024-01-02,1\n".encode("utf-16"), "UTF-16"),
        ("a.csv", "Date,Close\n2024-01-02,1\n".encode("utf-16-le"), "UTF-16"),
        ("a.csv", "Date,Clôse\n".encode("latin-1"), r"not UTF-8 \(byte 0xf4 in line 1\)"),
        ("a.csv", b"Date,Close\n1,2,3\n", "as many fields in each row"),
        ("a.csv", b'Date,Close\n"1,2\n3,4\n', "double quotes"),
        ("a.csv", b"Close,Close\n1,2\n", "more than one column 'Close'"),
        ("a.csv.gz", gzip.compress(_TEXT, mtime=0)[:-12], "no whole gzip"),
        ("a.csv.gz", _TEXT, "no whole gzip"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", _TEXT, "no whole Parquet"),
    ],
)
def test_an_unreadable_file_is_one_clear_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(_parquet(tmp_path)[:-20])
    with pytest.raises(DataError, match="no whole Parquet") as caught:
        read_file(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_file(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read_file(tmp_path / "folder.csv")


def _table(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"n": [str(n) for n in range(rows)], "text": [f'"é, {n}\nx' for n in range(rows)]}
    )


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_batches_are_the_file_in_frames_of_so_many_rows(tmp_path: Path, name: str) -> None:
    table = _table(1_000)
    path = tmp_path / name
    if name.endswith("parquet"):
        table.write_parquet(path, row_group_size=170)
    else:
        text = table.write_csv().encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    frames = list(read_batches(path, rows=300))
    assert [frame.height for frame in frames] == [300, 300, 300, 100]
    assert pl.concat(frames).equals(table)
    assert abs(expected_rows(path) - 1_000) <= (0 if name == "a.parquet" else 1_001)


def test_an_empty_cell_is_null_and_a_quoted_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\n\na,b\n,""\nNA,null\n')
    assert read_file(tmp_path / "a.csv").rows() == [(None, ""), ("NA", "null")]


def test_what_is_wrong_far_behind_is_found_there(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = 600_000
    path.write_bytes(b"a,b\n" + b"1,2345678\n" * rows + b"1,\xff\n")
    with pytest.raises(DataError, match=rf"byte 0xff in line {rows + 2}\)"):
        list(read_batches(path))
    path.write_bytes(b"a,b\n" + b"1,2345678\n" * rows + b"1,2,3\n")
    frames = read_batches(path, rows=100_000)
    assert next(frames).height == 100_000
    with pytest.raises(DataError, match="as many fields in each row"):
        list(frames)
