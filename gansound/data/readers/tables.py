"""Tables in Arrow streams (``.arrow``) and parquet files, a few rows at a time. Only here pyarrow is imported."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gansound.extras import require

_BATCH_ROWS = 32  # in memory at a time, of a parquet file; an Arrow stream is mapped, a row in memory
_BATCH_BYTES = 16 << 20  # likewise, where a dictionary holds a value once that many rows name
_LARGE_BYTES = 1 << 30
_MOST_PACKED = 100  # no audio, silence apart, gets so much smaller


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    require(f"{path}: reading it", "pyarrow")
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        kind = "a parquet file" if path.suffix == ".parquet" else "an Arrow stream"
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: damaged, or not {kind}: {reason}. Download or write it again") from None


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as reader:
        yield reader


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
        yield file


def schema(path: Path) -> Any:
    """The pyarrow.Schema of a file. Raises ValueError when it is damaged, or there is no pyarrow."""
    with _understood(path):
        if path.suffix == ".parquet":
            with _parquet(path) as file:
                return file.schema_arrow
        with _stream(path) as reader:
            return reader.schema


def count(path: Path) -> int:
    """Rows of a file, without reading them. Raises ValueError as :func:`schema`."""
    with _understood(path):
        if path.suffix == ".parquet":
            with _parquet(path) as file:
                return int(file.metadata.num_rows)
        with _stream(path) as reader:
            return sum(batch.num_rows for batch in reader)


def rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file in order, each with the values of ``columns``. Raises ValueError as :func:`schema`."""
    with _understood(path):
        if path.suffix == ".parquet":
            with _parquet(path) as file:
                for batch in file.iter_batches(_batch_rows(file.metadata, columns), columns=list(columns)):
                    yield from _values(batch, columns)
        else:
            with _stream(path) as reader:
                for batch in reader:
                    yield from _values(batch, columns)


def _batch_rows(metadata: Any, columns: Sequence[str]) -> int:
    """How many rows at a time may be asked for: each may be as large as all of a column that has a dictionary.

    Raises OSError for columns that would become far more than they are: a group of rows is unpacked as a whole.
    """
    largest = 1
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if column.path_in_schema.split(".")[0] not in columns:
                continue
            unpacked, packed = column.total_uncompressed_size, column.total_compressed_size
            if unpacked > _LARGE_BYTES and unpacked > _MOST_PACKED * max(1, packed):
                raise OSError(f"{packed:,} bytes of column {column.path_in_schema} would become {unpacked:,}")
            if any("DICTIONARY" in encoding for encoding in column.encodings):
                largest = max(largest, unpacked)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))


def _values(batch: Any, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in range(batch.num_rows):
        yield {name: batch.column(name)[row].as_py() for name in columns}
