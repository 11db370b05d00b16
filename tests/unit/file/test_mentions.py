"""Which names a function's body uses: in code, in strings that it may run, and never in a comment."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pg_hotfix.file.mentions import Mention, find_mentions, stands_in

NONE, WORD, PART = Mention.NONE, Mention.WORD, Mention.PART


@pytest.mark.parametrize(
    ("source", "mention"),
    [
        ("", NONE),
        ("NEW.rating := 1", PART),
        ("new . RATING := 1", PART),
        ('SELECT d."rating" FROM drivers d', PART),
        ("SELECT $1.rating", PART),
        ("INSERT INTO notes (rating) VALUES (1)", WORD),
        ('SELECT "Rating", ratings, berating, rating$, rating_1, "rat""ing"', NONE),
        ("-- NEW.rating\n/* rating /* rating */ rating */ SELECT 1", NONE),
        ("EXECUTE 'UPDATE drivers SET rating = 1'", WORD),
        ("EXECUTE 'SELECT ($1).rating' USING NEW", PART),
        ("EXECUTE $q$SELECT 'it''s ' || $$NEW.rating$$$q$", PART),
        ("EXECUTE 'EXECUTE ''SELECT d.rating''' ", PART),
        ("EXECUTE '-- rating' || E'\\nx'", NONE),
        ("RAISE 'it''s a rating, isn''t it'", WORD),
        ("RAISE 'isn''t it ratings'", NONE),
        ("a := 'does not end; NEW.rating", WORD),
    ],
)
def test_a_body_in_sql_is_read_as_postgresql_reads_it(source: str, mention: Mention) -> None:
    assert find_mentions(source, {"rating"}, "plpgsql") == {"rating": mention}


@pytest.mark.parametrize(
    ("source", "mention"),
    [
        ('TD["new"]["rating"] = 1 # don\'t', PART),
        ("$_TD->{new}{rating} = 1;", PART),
        ("NEW.RATING = 1", PART),
        ("NEW.ratings = NEW.$rating + NEW.rating2", NONE),
    ],
)
def test_in_another_language_any_whole_word_counts(source: str, mention: Mention) -> None:
    assert find_mentions(source, {"rating"}, "plpython3u") == {"rating": mention}


NAMES = st.text(min_size=1, max_size=10).filter(lambda name: "\0" not in name)


@given(NAMES)
@example('"')
@example("'")
@example("a.*b")
@example("$$")
@example("--")
def test_a_quoted_name_of_any_characters_is_found(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert find_mentions(f"SELECT NEW.{quoted}", {name}) == {name: PART}
    assert find_mentions(f"EXECUTE 'SELECT NEW.{quoted.replace("'", "''")}'", {name}) == {name: PART}


@given(NAMES, st.text(max_size=20))
def test_no_source_is_too_strange_to_be_searched(name: str, source: str) -> None:
    assert find_mentions(source, {name}).keys() == {name}
    assert stands_in(f" {name} ", name)
