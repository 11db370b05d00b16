"""The line of schema.prisma for a column, as Prisma's own introspection would write it, but for a camelCase name.

https://www.prisma.io/docs/orm/reference/prisma-schema-reference#model-field-scalar-types and, for defaults, Prisma's
schema-engine/sql-schema-describer/src/postgres/default.rs
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pg_hotfix.file.hotfix_file import Hotfix
from pg_hotfix.file.lexer import Token, tokens
from pg_hotfix.promises.column.catalog import read_types
from pg_hotfix.promises.column.line import Expectation
from pg_hotfix.server.session import Session, literal

# By PostgreSQL's own name: the field's type, and the native type where it is not the field type's default.
TYPES = {
    "bit": ("String", "Bit"),
    "bool": ("Boolean", ""),
    "bpchar": ("String", "Char"),
    "bytea": ("Bytes", ""),
    "char": ("String", "Char"),
    "citext": ("String", "Citext"),
    "date": ("DateTime", "Date"),
    "float4": ("Float", "Real"),
    "float8": ("Float", ""),
    "inet": ("String", "Inet"),
    "int2": ("Int", "SmallInt"),
    "int4": ("Int", ""),
    "int8": ("BigInt", ""),
    "json": ("Json", "Json"),
    "jsonb": ("Json", ""),
    "money": ("Decimal", "Money"),
    "numeric": ("Decimal", "Decimal"),
    "oid": ("Int", "Oid"),
    "text": ("String", ""),
    "time": ("DateTime", "Time"),
    "timestamp": ("DateTime", "Timestamp"),
    "timestamptz": ("DateTime", "Timestamptz"),
    "timetz": ("DateTime", "Timetz"),
    "uuid": ("String", "Uuid"),
    "varbit": ("String", "VarBit"),
    "varchar": ("String", "VarChar"),
    "xml": ("String", "Xml"),
}
NATIVE_DEFAULTS = ("Decimal(65, 30)", "Timestamp(3)")
# PostgreSQL adds it to a length, or to precision and scale, in a modifier.
HEADER = 4
MICROSECONDS = 6

# An array's element, and the type behind a domain. Prisma knows a default only as the server prints it unprettied.
TYPE = """
SELECT t.typname, t.typtype::text, t.typtypmod, e.typname, e.typtype::text, b.typname
FROM pg_type t
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE t.oid = {oid}
"""
DEFAULT = """
SELECT pg_get_expr(d.adbin, d.adrelid)
FROM pg_attrdef d JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
WHERE a.attrelid = {table}::regclass AND a.attname = {column}
"""
# Of an enum, or of an array of one.
LABELS = """
SELECT l.enumlabel FROM pg_enum l JOIN pg_type t ON l.enumtypid IN (t.oid, t.typelem)
WHERE t.oid = {oid} ORDER BY l.enumsortorder
"""


@dataclass(frozen=True)
class FieldType:
    """What Prisma makes of a column's type. `name` is the field's type without ? or []; the rest is an enum's."""

    name: str
    native: str
    is_list: bool
    labels: tuple[str, ...] = ()
    database_name: str = ""


def describe_fields(session: Session, hotfix: Hotfix) -> Iterator[tuple[Expectation, str, FieldType]]:
    """Each expected column, which must be there, with its line and its type."""
    for expectation, known in zip(hotfix.expectations, read_types(session, hotfix), strict=True):
        assert known is not None  # The column was proved with it.
        field_type = read_field_type(session, known.oid, known.modifier)
        default = read_default(session, expectation, field_type)
        yield expectation, write_line(expectation, field_type, default), field_type


def write_line(expectation: Expectation, field_type: FieldType, default: str) -> str:
    name = field_name(expectation.column)
    mark = "[]" if field_type.is_list else "" if expectation.not_null else "?"
    parts = [
        name,
        f"{field_type.name}{mark}",
        f"@default({default})" if default else "",
        f"@map({json.dumps(expectation.column, ensure_ascii=False)})" if name != expectation.column else "",
        f"@db.{field_type.native}" if field_type.native else "",
    ]
    return " ".join(part for part in parts if part)


def field_name(column: str) -> str:
    """The column's name in camelCase; `column` if it has no letter that Prisma takes."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", re.sub(r"^[^A-Za-z]+", "", column)) if word]
    if not words:
        return "column"
    first, *rest = (word.lower() if word.isupper() else word for word in words)
    return first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in rest)


def identifier(name: str) -> str:
    """The name of an enum or of its value as Prisma writes it where it can't be used as it is."""
    return re.sub(r"[^A-Za-z0-9_]", "_", re.sub(r"^[^A-Za-z]+", "", name))


# Types


def read_field_type(session: Session, oid: int, modifier: int) -> FieldType:
    ((name, kind, domain_modifier, element, element_kind, base),) = session.query(TYPE.format(oid=oid))
    if kind == "d" and base in TYPES:
        name, modifier = base, domain_modifier
    known = element or name
    if (element_kind or kind) == "e":
        labels = tuple(label for (label,) in session.query(LABELS.format(oid=oid)))
        return FieldType(identifier(known), "", bool(element), labels, known)
    if known not in TYPES or element_kind == "d":
        return FieldType(f"Unsupported({json.dumps(name)})", "", bool(element))
    field, native = TYPES[known]
    sized = native + native_size(known, modifier, is_list=bool(element))
    return FieldType(field, "" if sized in NATIVE_DEFAULTS else sized, bool(element))


def native_size(name: str, modifier: int, *, is_list: bool) -> str:
    match name:
        case "varchar" | "bpchar" if modifier >= HEADER:
            return f"({modifier - HEADER})"
        case "bit" | "varbit" if modifier > 0:
            return f"({modifier})"
        case "numeric" if modifier >= HEADER:
            precision, scale = (modifier - HEADER) >> 16, (((modifier - HEADER) & 0x7FF) ^ 1024) - 1024
            return f"({precision}, {scale})"
        case "time" | "timetz" | "timestamp" | "timestamptz" if modifier >= 0 or not is_list:
            return f"({modifier if modifier >= 0 else MICROSECONDS})"
    return ""


# Defaults


def read_default(session: Session, expectation: Expectation, field_type: FieldType) -> str:
    """What stands in @default(...); empty if there is none."""
    if (expectation.generated or "").endswith("identity"):
        return "autoincrement()"
    if not (expectation.default or expectation.generated):
        return ""
    table, column = literal(expectation.table_in_sql), literal(expectation.column)
    ((printed,),) = session.query(DEFAULT.format(table=table, column=column))
    write = write_list if field_type.is_list else write_scalar
    value = write(session, printed, field_type)
    return f"dbgenerated({json.dumps(printed, ensure_ascii=False)})" if value is None else value


def write_scalar(session: Session, printed: str, field_type: FieldType) -> str | None:
    """The default in Prisma's words; None if it has none for it."""
    match without_casts(list(tokens(printed))), field_type.name:
        case [Token(text="now"), Token(text="("), Token(text=")")], "DateTime":
            return "now()"
        case [Token(text="CURRENT_TIMESTAMP")], "DateTime":
            return "now()"
        case [Token(text="nextval"), Token(text="("), Token(kind="string"), Token(text=")")], "Int" | "BigInt":
            return "autoincrement()"
        case [Token(text="true" | "false" as word)], "Boolean":
            return word
        case [Token(kind="number") as number], _:
            return write_value(number.text, field_type)
        case [Token(text="("), Token(text="-"), Token(kind="number") as number, Token(text=")")], _:
            return write_value(f"-{number.text}", field_type)
        case [Token(kind="string") as string], _:
            ((value,),) = session.query(f"SELECT {string.text}::text")
            return write_value(value, field_type)
    return None


def write_list(session: Session, printed: str, field_type: FieldType) -> str | None:
    found = without_casts(list(tokens(printed)))
    words = [token.text for token in found if token.kind not in ("string", "number")]
    if not {*words} <= {"ARRAY", "[", "]", ",", "(", ")", "-"}:
        return None
    ((values,),) = session.query(f"SELECT pg_catalog.to_json(({printed})::text[])::text")
    written = [write_value(value, field_type) for value in json.loads(values)]
    return None if None in written else f"[{', '.join(map(str, written))}]"


def write_value(value: str, field_type: FieldType) -> str | None:
    match field_type.name:
        case "Int" | "BigInt" if re.fullmatch(r"-?[0-9]+", value):
            return value
        case "Float" | "Decimal" if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
            return value
        case "Boolean" if value in ("t", "true", "f", "false"):
            return "true" if value.startswith("t") else "false"
        case "Bytes" if re.fullmatch(r"\\x([0-9a-f]{2})*", value):
            return json.dumps(base64.b64encode(bytes.fromhex(value[2:])).decode())
        case "String" | "Json" if field_type.native != "Uuid":
            return json.dumps(value, ensure_ascii=False)
    return identifier(value) if value in field_type.labels else None


def without_casts(found: Sequence[Token]) -> list[Token]:
    """The tokens of a printed expression without space and without any `::type`."""
    kept: list[Token] = []
    rest = [token for token in found if token.kind != "space"]
    position = 0
    while position < len(rest):
        if [token.text for token in rest[position : position + 2]] == [":", ":"]:
            position = after_type(rest, position + 2)
        else:
            kept.append(rest[position])
            position += 1
    return kept


def after_type(rest: Sequence[Token], position: int) -> int:
    """Where the type's name, its modifier and its brackets end."""
    closing = {"(": ")", "[": "]"}
    while position < len(rest):
        token = rest[position]
        if token.text in closing:
            while rest[position].text != closing[token.text]:
                position += 1
        elif token.kind not in ("word", "quoted") and token.text != ".":
            break
        position += 1
    return position
