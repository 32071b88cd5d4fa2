"""Where a framework is not installed, its module says what to type."""

import importlib
import sys

import pytest

from mmsearch.errors import MissingExtra


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_a_missing_framework_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, extra: str
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"mmsearch.integrations.{module}", raising=False)

    with pytest.raises(MissingExtra) as missing:
        importlib.import_module(f"mmsearch.integrations.{module}")

    assert missing.value.hint == f"pip install 'mmsearch[{extra}]'"
