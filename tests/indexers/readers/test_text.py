from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import UnreadableFile
from mmsearch.indexers.readers import read
from mmsearch.indexers.readers.text import decode
from mmsearch.values import Kind, ReadPolicy, Segment, TextOrigin

POLICY = ReadPolicy(passage_words=40)


def passages(path: Path, content: str | bytes, policy: ReadPolicy = POLICY) -> list[Segment]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read(path, Kind.TEXT, policy))


def span(segment: Segment) -> tuple[int, int]:
    assert segment.locator.char_start is not None
    assert segment.locator.char_end is not None
    return segment.locator.char_start, segment.locator.char_end


def test_offsets_index_into_the_decoded_text(tmp_path: Path) -> None:
    text = (
        "# Ünïcode\r\n\r\n" + "One sentence — of seven words — here. " * 30 + "\n\n## More\n\nEnd."
    )
    found = passages(tmp_path / "a.md", text)
    assert len(found) > 3
    assert all(text[slice(*span(one))] == one.text for one in found)


def test_no_word_is_lost_or_doubled(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i} says: " + f"word{i} " * (i * 7) for i in range(15))
    found = passages(tmp_path / "a.txt", text)
    assert " ".join(one.text for one in found).split() == text.split()


@given(st.text(alphabet="ab .\n#`é\t。!", max_size=400), st.integers(1, 9))
def test_any_text_is_covered_in_order(
    tmp_path_factory: pytest.TempPathFactory, text: str, max_words: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.md"
    if not text.strip():
        return
    found = passages(path, text, ReadPolicy(passage_words=max_words))
    spans = [span(one) for one in found]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert "".join("".join(one.text.split()) for one in found) == "".join(text.split())


def test_passages_have_about_as_many_words_as_asked_for(tmp_path: Path) -> None:
    found = passages(tmp_path / "a.txt", "Six words make up this sentence. " * 100)
    assert all(one.num_words <= 40 for one in found)
    assert all(one.num_words >= 36 for one in found[:-1])


def test_a_long_paragraph_is_cut_between_sentences(tmp_path: Path) -> None:
    found = passages(tmp_path / "a.txt", "Six words make up this sentence. " * 100)
    assert all(one.text.startswith("Six") and one.text.endswith(".") for one in found)


def test_one_endless_sentence_is_cut_as_well(tmp_path: Path) -> None:
    found = passages(tmp_path / "a.txt", "word " * 1000)
    assert [one.num_words for one in found] == [40] * 25


def test_the_headings_above_a_passage_are_told(tmp_path: Path) -> None:
    text = "# Guide\n\n" + "intro " * 30 + "\n\n## Setup\n\n" + "steps " * 30
    text += "\n\n### Linux ##\n\n" + "apt " * 30 + "\n\n# Other\n\n" + "end " * 30
    about = [one.about for one in passages(tmp_path / "user_guide.md", text)]
    assert about == [
        "user guide\nGuide",
        "user guide\nGuide > Setup",
        "user guide\nGuide > Setup > Linux",
        "user guide\nOther",
    ]


def test_a_hash_in_a_block_of_code_is_no_heading(tmp_path: Path) -> None:
    text = "# Run\n\n```sh\n# a comment\n\nmake\n```\n"
    (only,) = passages(tmp_path / "a.md", text)
    assert only.about == "a\nRun"
    assert only.text == text.strip()


def test_short_sections_share_a_passage(tmp_path: Path) -> None:
    (only,) = passages(tmp_path / "a.md", "# A\n\none\n\n# B\n\ntwo\n")
    assert only.text == "# A\n\none\n\n# B\n\ntwo"


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_usual_encodings_are_told_apart(codec: str) -> None:
    text = "Naïve café: 5 £ and more, says the déjà vu."
    assert decode(text.encode(codec)) == text


def test_every_byte_decodes_to_something() -> None:
    assert len(decode(bytes(range(128, 256)))) == 128


def test_a_passage_says_where_its_words_come_from_and_has_no_pixels(tmp_path: Path) -> None:
    (only,) = passages(tmp_path / "a.txt", "hello")
    assert (only.text_origin, only.pixels, only.thumbnail) == (TextOrigin.FILE, None, b"")


def test_a_huge_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    found = passages(tmp_path / "a.txt", "é" * 50, ReadPolicy(max_text_bytes=21))
    assert [one.text for one in found] == ["é" * 10]


@pytest.mark.parametrize("content", [b"", b" \n\t\n", bytes(range(256)) * 3])
def test_emptiness_and_binary_junk_are_unreadable(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnreadableFile):
        passages(tmp_path / "a.txt", content)


@pytest.mark.parametrize(
    "code",
    [
        "```pip install x``` is all it takes",
        "````\n```\n# no heading\n````",
        "~~~\n```\n# no heading\n~~~",
        "    # a comment in indented code",
    ],
)
def test_code_neither_makes_nor_hides_headings(tmp_path: Path, code: str) -> None:
    path = tmp_path / "guide.md"
    path.write_text(f"# First\n\n{'word ' * 60}\n\n{code}\n\n# Second\n\n{'word ' * 60}\n")

    abouts = [segment.about for segment in read(path, Kind.TEXT, ReadPolicy())]

    assert len(abouts) == 2
    assert "First" in abouts[0]
    assert "Second" in abouts[1]


def test_a_script_without_blanks_is_cut_into_passages_too(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\u6f22\u5b57" * 15_000)

    segments = list(read(path, Kind.TEXT, ReadPolicy()))

    assert "".join(segment.text for segment in segments) == path.read_text()
    assert max(len(segment.text) for segment in segments) <= 20 * ReadPolicy().passage_words


def test_the_last_letter_of_a_latin_1_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "menu.txt"
    path.write_bytes(b"au caf\xe9")

    [segment] = read(path, Kind.TEXT, ReadPolicy())

    assert segment.text == "au caf\u00e9"
