"""Writes test/golden/parquet, small files and the records in two of them as JSON, and test/golden/zstd.

    pip install pyarrow==26.0.1                   # and zstd 1.5, the tool, on the path
    python test/golden/make_parquet.py

The files differ in how the same five records are stored (compression, encodings, row groups, pages), and one has every kind of column.
"""

import datetime
import decimal
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(__file__).parent / "parquet"
folder.mkdir(exist_ok=True)

texts = ["plain", 'drei €, "quoted"', "two\nlines", " spaces ", "\U0001f600\u2028 tab\t"]
five = pa.table({"text": texts, "other": [str(i) for i in range(5)]})

# One file for each way to store the five records.
for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
    pq.write_table(five, folder / f"five-{codec}.parquet", compression=codec)
pq.write_table(five, folder / "five-groups.parquet", row_group_size=2, use_dictionary=False)
pq.write_table(five, folder / "five-v2.parquet", data_page_version="2.0", compression="zstd", write_page_index=True)
pq.write_table(
    five, folder / "five-delta.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY", "other": "DELTA_LENGTH_BYTE_ARRAY"}
)

# Many pages: 300 rows in groups of 100, of a few values, by a dictionary.
many = [{"text": f"{texts[i % 5]}{i % 7}", "n": i % 3} for i in range(300)]
pq.write_table(
    pa.Table.from_pylist(many), folder / "many.parquet", row_group_size=100, data_page_size=64, write_batch_size=10, compression="zstd"
)
(folder / "many.json").write_text(json.dumps(many))

message = pa.struct([("role", pa.string()), ("content", pa.string()), ("score", pa.float64())])
kinds = pa.schema(
    [
        ("text", pa.string()),
        ("large", pa.large_string()),
        ("flag", pa.bool_()),
        ("small", pa.int8()),
        ("unsigned", pa.uint32()),
        ("big", pa.int64()),
        ("huge", pa.uint64()),
        ("half", pa.float16()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("decimal", pa.decimal128(10, 2)),
        ("date", pa.date32()),
        ("seconds", pa.timestamp("s", tz="UTC")),
        ("millis", pa.timestamp("ms")),
        ("micros", pa.timestamp("us")),
        ("nanos", pa.timestamp("ns")),
        ("utf8bytes", pa.binary()),
        ("category", pa.dictionary(pa.int32(), pa.string())),
        ("strings", pa.list_(pa.string())),
        ("lists", pa.list_(pa.list_(pa.int64()))),
        ("messages", pa.list_(message)),
        ("nested", pa.struct([("a", pa.struct([("b", pa.list_(pa.int32())), ("c", pa.string())]))])),
        ("map", pa.map_(pa.string(), pa.int64())),
        ("maps", pa.list_(pa.map_(pa.string(), pa.list_(pa.string())))),
        ("nothing", pa.null()),
    ]
)
when = datetime.datetime(2024, 2, 29, 12, 34, 56)
full = {
    "text": "drei €",
    "large": "\ufeffx",
    "flag": True,
    "small": -128,
    "unsigned": 2**32 - 1,
    "big": 2**53 - 1,
    "huge": 2**64 - 1,
    "half": 1.5,
    "single": 0.25,
    "double": 1e300,
    "decimal": decimal.Decimal("-12345.67"),
    "date": datetime.date(1969, 12, 31),
    "seconds": when.replace(tzinfo=datetime.timezone.utc),
    "millis": when.replace(microsecond=7000),
    "micros": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999),
    "nanos": when,
    "utf8bytes": "€".encode(),
    "category": "b",
    "strings": ["a", None, ""],
    "lists": [[1, None], [], None, [2**60]],
    "messages": [{"role": "user", "content": "a", "score": None}, None, {"role": None, "content": "b", "score": 0.5}],
    "nested": {"a": {"b": [1, None], "c": None}},
    "map": [("x", 1), ("y", None)],
    "maps": [[("k", ["v", None])], [], None],
    "nothing": None,
}
empty = {name: None for name in kinds.names}
hollow = empty | {"strings": [], "lists": [], "messages": [], "nested": {"a": None}, "map": [], "maps": [], "text": ""}
pq.write_table(pa.Table.from_pylist([full, empty, hollow, full], kinds), folder / "kinds.parquet")

expected = full | {
    "huge": str(2**64 - 1),
    "decimal": -12345.67,
    "date": "1969-12-31",
    "seconds": "2024-02-29T12:34:56Z",
    "millis": "2024-02-29T12:34:56.007Z",
    "micros": "1969-12-31T23:59:59.999999Z",
    "nanos": "2024-02-29T12:34:56Z",
    "utf8bytes": "€",
    "lists": [[1, None], [], None, [str(2**60)]],
    "map": {"x": 1, "y": None},
    "maps": [{"k": ["v", None]}, {}, None],
}
(folder / "kinds.json").write_text(json.dumps([expected, empty, hollow | {"map": {}}, expected]))

# A column that is said to be text and is none, and one of bytes that are none.
binary = pa.table({"text": pa.array([b"good", b"\xc3(", b"good"]).cast(pa.binary()), "bytes": pa.array([b"\xff\x00", b"", b"x"])})
bad_text = pa.StringArray.from_buffers(3, *binary["text"].combine_chunks().buffers()[1:])
pq.write_table(pa.table({"text": bad_text, "bytes": binary["bytes"]}), folder / "bad-text.parquet")

pq.write_table(five.slice(0, 0), folder / "no-rows.parquet")

# What Zstandard's own tool writes, of more than one block: checksums, a size that is not known, a large window, two frames.
zstd = folder.parent / "zstd"
zstd.mkdir(exist_ok=True)
lines = "".join(f'{{"text":"line {i} of {i * i % 1009}, drei €"}}\n' for i in range(4000)).encode()
whole = zstd / "lines.jsonl"
whole.write_bytes(lines)
subprocess.run(["zstd", "-q", "-f", "-19", whole], check=True)
whole.unlink()
streamed = subprocess.run(["zstd", "-q", "-c", "-1", "--long=27"], input=lines, stdout=subprocess.PIPE, check=True).stdout
(zstd / "streamed.jsonl.zst").write_bytes(streamed)
parts = [subprocess.run(["zstd", "-q", "-c", *flags], input=part, stdout=subprocess.PIPE, check=True).stdout
         for flags, part in [(["-19"], lines[:1000]), (["--no-check", "-5"], lines[1000:])]]
(zstd / "two.jsonl.zst").write_bytes(b"\x50\x2a\x4d\x18\x03\0\0\0abc".join([b"", *parts]))
