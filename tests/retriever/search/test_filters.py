"""Filters: one condition over the filter columns, and nothing else gets through."""

import re
from typing import TYPE_CHECKING

import lancedb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmsearch.errors import BadFilter
from mmsearch.retriever.search.filters import (
    checked,
    excluding,
    filter_sql,
    glob_pattern,
)
from mmsearch.retriever.store.rows import quoted
from mmsearch.values import Kind, Query

if TYPE_CHECKING:
    from lancedb.table import Table as LanceTable


def test_no_filter_is_none() -> None:
    assert filter_sql(Query("chart")) is None


def test_filters_are_joined_and_the_persons_own_cannot_widen_the_others() -> None:
    sql = filter_sql(Query(where="page < 3 OR page > 9", kinds=["pdf"]))

    assert sql == "(page < 3 or page > 9) AND (kind IN ('pdf'))"


def test_the_only_filter_stays_as_it_was_typed_for_messages_to_show() -> None:
    assert filter_sql(Query(where="page < 3 or page > 9")) == "page < 3 or page > 9"


@pytest.mark.parametrize(
    "where",
    [
        "page <= 3",
        "kind = 'video' and start >= 10.5",
        "path like '%/it''s; -- fine/%'",
        "not (num_words between 5 and 10) or page is not null",
        "page in (1, 2, 3)",
        "contains ( lower ( path ) , 'report' )",
    ],
)
def test_conditions_over_the_columns_pass_as_they_are(where: str) -> None:
    assert checked(where).replace(" ", "") == where.replace(" ", "")


def test_columns_and_keywords_may_be_in_any_case() -> None:
    assert checked("PAGE Is Not NULL") == "page is not null"


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ("modified >= '2026-01-31'", "modified >= timestamp '2026-01-31 00:00:00'"),
        ("modified >= date '2026-01-31'", "modified >= timestamp '2026-01-31 00:00:00'"),
        ("Modified < '2026-02'", "modified < timestamp '2026-02-01 00:00:00'"),
        ("modified < '2026'", "modified < timestamp '2026-01-01 00:00:00'"),
        ("'2026-01-31 18:30' > modified", "timestamp '2026-01-31 18:30:00' > modified"),
        (
            "modified between '2025-12-31T23:00+01:00' and TIMESTAMP '2026-01-02' or path = '2026'",
            "modified between timestamp '2025-12-31 22:00:00' and "
            "timestamp '2026-01-02 00:00:00' or path = '2026'",
        ),
    ],
)
def test_times_are_written_as_people_write_them(where: str, meant: str) -> None:
    assert checked(where) == meant


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(BadFilter, match="'yesterday' is no time such as '2026-01-31'"):
        checked("modified > 'yesterday'")


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("page = 1; DROP TABLE segments", "';'"),
        ("page = 1 -- and", "'--'"),
        ("page - - 1 = 0", "'--'"),
        ("page = 1 /* */", "'/'"),
        ("page in (select page)", "no column 'select'"),
        ("commit_id = 'x'", "no column 'commit_id'"),
        ("text like '%secret%'", "no column 'text'"),
        ("kind = pdf", "single quotes"),
        ('"page" = 1', "unexpected"),
        ("`page` = 1", "unexpected"),
        ("page = 'open", "unexpected"),
        ("page = 1) or (1 = 1", "never opened"),
        ("(page = 1", "never closed"),
        ("sleep(10)", "no function 'sleep'"),
        ("page(1)", "no function 'page'"),
        ("page = 1 union all", "no column 'union'"),
        ("1" * 5_000, "more than"),
    ],
)
def test_anything_else_is_refused_and_says_why(where: str, named: str) -> None:
    with pytest.raises(BadFilter, match=re.escape(named)) as refused:
        checked(where)
    assert "columns: path, kind, page, start, end, num_words, modified" in refused.value.hint


@given(st.text(alphabet="pathkind=<>()'\"; -/*,1\\\n", max_size=30))
def test_what_passes_keeps_its_quotes_and_brackets_closed(where: str) -> None:
    try:
        passed = checked(where)
    except BadFilter:
        return
    outside = re.sub(r"'(?:[^']|'')*'", "", passed)
    assert outside.count("(") == outside.count(")")
    assert not set(outside) & set("'\";/\\")
    assert "--" not in outside


def test_kinds_become_one_list_and_unknown_ones_are_refused() -> None:
    assert filter_sql(Query(kinds=["video", Kind.PDF, "pdf"])) == "kind IN ('pdf', 'video')"
    assert filter_sql(Query(kinds=[])) == "false"
    with pytest.raises(BadFilter, match="kinds are pdf, image, video, text"):
        filter_sql(Query(kinds=["pdf' OR 1=1"]))


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("reports/*.pdf", "/x/y/reports/a.pdf", True),
        ("reports/*.pdf", "/x/y/reports/2024/a.pdf", False),
        ("reports/*.pdf", "/x/old-reports/a.pdf", False),
        ("reports/**/*.pdf", "/x/reports/a.pdf", True),
        ("reports/**/*.pdf", "/x/reports/2024/q1/a.pdf", True),
        ("reports/", "/x/reports/2024/a.pdf", True),
        ("*.pdf", "/x/a.pdf", True),
        ("*.pdf", "/x/a.pdf.txt", False),
        ("/x/*", "/x/a.pdf", True),
        ("/x/*", "/y/x/a.pdf", False),
        ("/x/**", "/x/y/z.pdf", True),
        ("page-?.png", "/x/page-1.png", True),
        ("page-?.png", "/x/page-/.png", False),
        ("a+b (1).pdf", "/x/a+b (1).pdf", True),
        ("a.pdf", "/x/aXpdf", False),
        ("**", "/anything/at\nall", True),
    ],
)
def test_a_glob_matches_a_whole_path_or_its_end(glob: str, path: str, matches: bool) -> None:
    assert bool(re.search(glob_pattern(glob), path)) is matches


def test_a_quote_in_a_glob_stays_in_its_string() -> None:
    sql = filter_sql(Query(path="it's') OR (1=1"))

    assert sql is not None
    plain = re.sub(r"'(?:[^']|'')*'", "?", sql)
    assert plain == "ends_with(path, ?) AND regexp_like(path, ?)"


@pytest.mark.parametrize(
    ("glob", "sql"),
    [
        ("*.pdf", "ends_with(path, '.pdf')"),
        ("**/*.pdf", "ends_with(path, '.pdf')"),
        ("/x/**", "starts_with(path, '/x/')"),
        ("/x/", "starts_with(path, '/x/')"),
        ("/x/a.pdf", "path = '/x/a.pdf'"),
    ],
)
def test_a_glob_that_plain_texts_say_needs_no_pattern(glob: str, sql: str) -> None:
    assert filter_sql(Query(path=glob)) == sql


PATHS = [
    "/x/a.pdf", "/x/a.pdf.txt", "/x/xa.pdf", "/x/b/a.pdf", "/x/b/c/a.pdf", "/y/x/b/a.pdf",
    "/x/b", "/xx/b/a.PDF", "/x/it's %_.pdf", "/x/b/a.pdf/c", "/.pdf", "/x/a\nb.pdf", "/x/é*.pdf",
]  # fmt: skip
texts_and_wildcards = st.lists(
    st.sampled_from(["/", "x", "b", "a", ".pdf", "x/", "/x/", "*", "**", "**/", "?", "'", "%"]),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> "LanceTable":
    database = lancedb.connect(tmp_path_factory.mktemp("paths"))
    return database.create_table("paths", pa.table({"path": PATHS}))


@given(texts_and_wildcards)
@example(["*", ".pdf"])
@example(["**/", "*", ".pdf"])
@example(["?", "*", ".pdf"])
@example(["/x/", "**"])
@example(["/x/", "**/", "*", ".pdf"])
@example(["x/b/"])
@example(["*", "/a.pdf"])
@example(["/x/a.pdf"])
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_database_takes_a_glob_for_what_its_pattern_is(
    paths: "LanceTable", parts: list[str]
) -> None:
    glob = "".join(parts)
    pattern = glob_pattern(glob)[:-1] + r"\Z"  # where Python's "$" lets a line end follow

    where = filter_sql(Query(path=glob)) or ""
    found = paths.search().where(where).to_arrow()["path"].to_pylist()

    assert sorted(found) == sorted(path for path in PATHS if re.search(pattern, path))


def test_left_out_paths_and_segments_narrow_any_filter() -> None:
    assert excluding(None, paths=[], segments=[]) is None
    assert excluding("page < 3 or page > 9", paths=["/it's"], segments=["b", "a"]) == (
        "(page < 3 or page > 9) AND (path NOT IN ('/it''s')) AND (segment_id NOT IN ('a', 'b'))"
    )


@given(st.text(max_size=20))
def test_quoting_is_undone_by_reading_sql(text: str) -> None:
    body = quoted(text)

    assert (body[0], body[-1]) == ("'", "'")
    assert body[1:-1].replace("''", "") == text.replace("'", "")
