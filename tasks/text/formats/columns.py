"""The column of text of a table: errors where it is missing or holds something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.base import DataError


def require_text_column(file: Path, schema: Any, field: str) -> None:
    """Checks the Arrow schema of a file.

    Args:
        file: The file, for the error.
        schema: Its schema.
        field: The name of the column.

    Raises:
        DataError: There is no such column, or it does not hold text.
    """
    if field not in schema.names:
        fields = ", ".join(schema.names) or "none"
        raise DataError(f"{file} has no field {field!r} (fields: {fields}); choose one: --set text_field=NAME")
    if not _is_text(schema.field(field).type):
        kind = schema.field(field).type
        raise DataError(
            f"{file}: the field {field!r} holds {kind}, not text; choose another field: --set text_field=NAME"
        )


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))
