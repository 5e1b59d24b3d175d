"""Files as frames, and every unreadable file as one clear line."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.errors import DataError, UsageError
from hyperfeast.ingest import read_file

_TEXT = b"Date,Close\n2024-01-02,1.5\n2024-01-03,nil\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", _TEXT),
        ("a.CSV", b"\xef\xbb\xbf" + _TEXT),
        ("a.csv.gz", gzip.compress(_TEXT)),
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
        ("a.csv.gz", gzip.compress(_TEXT)[:-12], "no whole gzip"),
        ("a.csv.gz", _TEXT, "no whole gzip"),
        ("a.csv.gz", gzip.compress(b""), "is empty"),
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
