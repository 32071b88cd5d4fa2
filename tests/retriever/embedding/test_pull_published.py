"""Models are pulled as their authors published them, and say what they are on arrival."""

import json
from pathlib import Path

import pytest
from published_folders import PLUME_TOKENS, write_published
from toy_hub import Files, ToyHub

from mmsearch.errors import DownloadFailed, ModelNotFound, ToBeConverted
from mmsearch.retriever.embedding.library import available_models, model_folder
from mmsearch.retriever.embedding.load import load_embedder, model_space
from mmsearch.retriever.embedding.pull import pull
from mmsearch.retriever.embedding.verify import verify
from mmsearch.retriever.models.description import Layout, read_description
from mmsearch.values import Item

PLUME = "CUDAOUTOFMEMORY/PLUME-Qwen2-VL-2B"


@pytest.fixture(scope="module")
def plume(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("plume")
    write_published(folder, tokens=PLUME_TOKENS, num_experts=4, num_shards=2)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_published_model_describes_itself_and_is_used_by_its_name(
    hub: ToyHub, plume: Files
) -> None:
    commit = hub.publish(PLUME, plume)

    pulled = pull("plume")

    described = read_description(pulled.path)
    assert described.name == f"{PLUME}@{commit}"
    assert (described.reasoner, described.effort, described.layout) == ("rollout", 8, Layout.HUB)
    assert [one.problem for one in verify("plume")] == [""] * (len(plume) + 1)
    embedder = load_embedder("plume", device="cpu")
    assert embedder.embed([Item(["a cat"])]).shape == (1, described.dim)
    assert embedder.space == model_space(described.name)


def test_a_model_is_taken_for_what_its_repository_is_named(hub: ToyHub, tmp_path: Path) -> None:
    write_published(tmp_path / "anything")
    files = {file.name: file.read_bytes() for file in (tmp_path / "anything").iterdir()}
    hub.publish("someone/my-gme-tuned", files)

    assert read_description(pull("someone/my-gme-tuned").path).about.startswith("GME")


def test_a_model_of_no_known_family_is_refused_before_its_weights(
    hub: ToyHub, plume: Files
) -> None:
    config = json.loads(plume["config.json"]) | {"model_type": "bert"}
    hub.publish("someone/bert", {**plume, "config.json": json.dumps(config).encode()})

    with pytest.raises(DownloadFailed, match="it is a 'bert', and what is known") as error:
        pull("someone/bert")

    assert error.value.hint == "mmsearch model list --all"
    assert not any(name.endswith(".safetensors") for name in hub.files_asked())
    with pytest.raises(ModelNotFound):
        model_folder("someone/bert")


def test_a_model_without_tokenizer_json_is_to_be_converted(hub: ToyHub, plume: Files) -> None:
    older = {name: content for name, content in plume.items() if name != "tokenizer.json"}
    hub.publish(PLUME, {**older, "vocab.json": b"{}", "merges.txt": b"#"})

    with pytest.raises(ToBeConverted, match=r"it has no tokenizer\.json") as error:
        pull("plume")

    assert error.value.hint.startswith("mmsearch model convert plume DIR")
    assert [one.about for one in available_models() if one.source] == [
        "to be converted first: mmsearch model convert plume DIR"
    ]
