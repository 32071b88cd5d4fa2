"""What a run will take, and how sure that is."""

import json
from pathlib import Path

import made_files
import pytest

from mmsearch.indexers.discover import Source
from mmsearch.indexers.estimate import MOST_OPENED, Range, _Counted, _total, estimate
from mmsearch.indexers.plan import Plan, Reading, make_plan
from mmsearch.indexers.rates import Rate
from mmsearch.values import Document, Kind, ReadPolicy, Status

WITHOUT_OCR, WITH_OCR = ReadPolicy(ocr=False), ReadPolicy(ocr=True)
# A page: 2 s to read, 1 s to embed, 0.5 s to commit, 10 kB; half of them 8 s of OCR.
RATES = {
    Kind.PDF: Rate(
        documents=1,
        segments=10,
        read_s=20,
        ocr_s=40,
        ocr_segments=5,
        embed_s=10,
        commit_s=5,
        bytes_stored=100_000,
    )
}


def planned(*readings: Reading, awaiting: tuple[Reading, ...] = ()) -> Plan:
    return Plan(
        read=readings,
        unchanged=0,
        touched=(),
        gone=(),
        failed_before=(),
        unsupported=0,
        awaiting=awaiting,
    )


def plan_of(folder: Path) -> Plan:
    files = sorted(folder.iterdir())
    return make_plan([Source(one, one.stat().st_size, 1) for one in files], {}, [folder])


def pdf_of(path: Path, num_pages: int) -> None:
    made_files.pdf(path, *[f"Page {number} on the pump." for number in range(num_pages)])


def test_pages_are_counted_and_times_are_by_the_rates_of_earlier_runs(tmp_path: Path) -> None:
    pdf_of(tmp_path / "a.pdf", 3)
    pdf_of(tmp_path / "b.pdf", 1)

    found = estimate(plan_of(tmp_path), RATES, policy=WITHOUT_OCR, num_workers=2)

    assert found.documents == {Kind.PDF: 2}
    assert found.segments == (4, 4, 4)
    assert found.num_opened == 2
    assert found.is_measured
    # At best 4 pages of 2 s on two readers or of 1 s in the embedder: 4 s; at worst 4 + 4 + 2.
    assert found.seconds == (4, 7, 10)
    assert found.bytes == (40_000, 40_000, 80_000)


def test_ocr_comes_on_top_also_for_what_still_awaits_it(tmp_path: Path) -> None:
    pdf_of(tmp_path / "a.pdf", 4)
    known = Document(
        path="/before.pdf",
        kind=Kind.PDF,
        content_hash="",
        size=1,
        mtime_ns=1,
        status=Status.DONE,
        commit_id="",
        num_segments=3,
        awaits_ocr=True,
    )
    before = Reading(Source(Path("/before.pdf"), 1, 1), Kind.PDF, known=known)
    plan = planned(*plan_of(tmp_path).read, awaiting=(before,))

    without = estimate(plan, RATES, policy=WITHOUT_OCR, num_workers=2)
    with_ocr = estimate(plan, RATES, policy=WITH_OCR, num_workers=2)

    # Half of 4 pages and all of the 3 that wait, 8 s each, on two readers.
    assert with_ocr.seconds.likely - without.seconds.likely == pytest.approx((2 + 3) * 8 / 2)
    assert with_ocr.segments == without.segments


@pytest.mark.parametrize("kind", list(Kind))
def test_without_earlier_runs_it_says_that_the_rates_are_of_elsewhere(
    tmp_path: Path, kind: Kind
) -> None:
    reading = Reading(Source(tmp_path / "gone", 100_000, 1), kind)

    found = estimate(planned(reading), {}, policy=WITH_OCR, num_workers=2, budget_s=0.0)

    assert not found.is_measured
    assert 0 < found.seconds.low < found.seconds.likely < found.seconds.high
    assert found.seconds.high >= 4 * found.seconds.low
    assert found.as_dict()["rates"] == "of another machine"
    json.dumps(found.as_dict())


def test_of_many_files_only_some_are_opened_and_the_range_holds_the_truth(tmp_path: Path) -> None:
    readings = []
    for number in range(3 * MOST_OPENED):
        path = tmp_path / f"{number}.md"
        path.write_text("\n\n".join(["The pump. " * 60] * (1 + number % 5)))
        readings.append(Reading(Source(path, path.stat().st_size, 1), Kind.TEXT))

    found = estimate(planned(*readings), {}, policy=WITHOUT_OCR, num_workers=1, budget_s=60)
    truth = estimate(
        planned(*readings[:MOST_OPENED]), {}, policy=WITHOUT_OCR, num_workers=1, budget_s=60
    )

    assert found.num_opened == MOST_OPENED
    assert truth.segments.low == truth.segments.high  # every file was opened
    assert found.segments.low <= 3 * truth.segments.likely <= found.segments.high
    assert found.segments.high < 1.5 * found.segments.low


def test_time_for_counting_is_bounded_and_nothing_is_opened_without_it(tmp_path: Path) -> None:
    made_files.pdf_bomb(tmp_path / "bomb.pdf")
    reading = Reading(Source(tmp_path / "bomb.pdf", 2_000, 1), Kind.PDF)

    found = estimate(planned(reading), RATES, policy=WITHOUT_OCR, num_workers=1, budget_s=0.0)

    assert found.num_opened == 0
    assert found.segments.low == 1
    assert found.segments.high > found.segments.likely > 1


def test_a_file_that_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.4\nand nothing more")
    reading = Reading(Source(tmp_path / "torn.pdf", 25, 1), Kind.PDF)

    found = estimate(planned(reading), RATES, policy=WITHOUT_OCR, num_workers=1)

    assert (found.num_opened, found.segments.high) == (1, 0)


def test_twenty_thousand_pictures_are_counted_without_opening_one() -> None:
    readings = [Reading(Source(Path(f"/x/{n}.png"), 1, 1), Kind.IMAGE) for n in range(20_000)]

    found = estimate(planned(*readings), {}, policy=WITHOUT_OCR, num_workers=2)

    assert found.segments == (20_000, 20_000, 20_000)
    assert found.num_opened == 0


def test_segments_are_reckoned_by_size_where_size_tells_and_by_file_where_it_does_not() -> None:
    by_size = _Counted([100, 200, 300, 6_000], [(100, 1), (200, 2), (300, 3)])
    by_file = _Counted([10, 900, 90, 10_000], [(10, 2), (900, 2), (90, 2)])

    assert _total(by_size) == (66, 66, 66)
    assert _total(by_file) == (8, 8, 8)
    low, likely, high = _total(_Counted([100, 100], [(100, 3)]))
    assert (low, likely, high) == (4, 6, 12)


def test_errors_of_different_kinds_of_file_add_up_by_their_squares() -> None:
    assert Range(7, 10, 14).plus(Range(6, 10, 13)) == (15, 20, 25)
