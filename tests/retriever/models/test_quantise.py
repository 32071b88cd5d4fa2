"""Int8 rows lose at most half a step."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.retriever.models.quantise import RowTable, dequantise_rows, quantise_rows


@given(seed=st.integers(0, 2**16), rows=st.integers(1, 5), size=st.floats(1e-3, 1e3))
def test_a_round_trip_is_off_by_at_most_half_a_step(seed: int, rows: int, size: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 9, generator=draw) * size

    codes, scale = quantise_rows(weight)

    off = (dequantise_rows(codes, scale) - weight).abs()
    assert (off <= scale[:, None] * 0.5001).all()


def test_the_step_is_a_127th_of_the_largest_value_of_its_own_row() -> None:
    codes, scale = quantise_rows(torch.tensor([[127.0, -1.0], [0.5, -2.54]]))

    torch.testing.assert_close(scale, torch.tensor([1.0, 0.02]))
    assert codes.tolist() == [[127, -1], [25, -127]]


def test_a_row_of_zeros_stays_zero() -> None:
    codes, scale = quantise_rows(torch.zeros(2, 3))

    assert dequantise_rows(codes, scale).abs().sum() == 0


def test_filters_keep_their_shape() -> None:
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    codes, scale = quantise_rows(weight)

    assert codes.shape == weight.shape
    assert (dequantise_rows(codes, scale) - weight).abs().max() < 0.02


def test_a_table_looks_up_what_it_holds() -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    table = RowTable(5, 64)
    table.set(weight)

    rows = table(torch.tensor([[4, 0], [1, 4]]))

    assert rows.shape == (2, 2, 64)
    torch.testing.assert_close(rows[0, 0], weight[4], atol=0.02, rtol=0)
    torch.testing.assert_close(rows[1, 1], rows[0, 0])
