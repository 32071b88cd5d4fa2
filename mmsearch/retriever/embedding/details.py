"""Everything that one model says of itself, for ``mmsearch model info``; nothing is loaded."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsearch.retriever.embedding.library import (
    ModelInfo,
    described,
    model_files,
    model_folder,
    model_info,
)
from mmsearch.retriever.models.description import ModelDescription

_LICENCES = ("license", "licence", "copying", "notice")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """One model: its line in the list, its description, and the files it consists of."""

    info: ModelInfo
    description: ModelDescription

    @property
    def family(self) -> str:
        """The network that reads: ``qwen2_vl``, or the name of a backbone of ours."""
        model = self.description
        hf = model.backbone_config.get("hf", {})
        return str(hf.get("model_type", model.backbone))

    @property
    def licences(self) -> list[str]:
        """Names of the files that say under what terms it may be used."""
        files = model_files(self.info.path)
        return [one.name for one in files if one.name.lower().startswith(_LICENCES)]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        model = self.description
        hashes = model.files
        return {
            **self.info.as_dict(),
            "description": model.about,  # of a plain folder too, which has no line of its own
            "dim": model.dims or model.dim,
            "family": self.family,
            "layout": str(model.layout),
            "reasoner": model.reasoner,
            "reasoner_config": dict(model.reasoner_config),
            "effort": model.effort,
            "efforts": list(model.efforts),
            "head": model.head,
            "readout": model.readout,
            "prompts": asdict(model.prompts),
            "chat": model.backbone_config.get("chat"),
            "max_pixels": model.max_pixels,
            "max_frames": model.max_frames,
            "pixel_policy": model.backbone_config.get("policy"),
            "positions": model.backbone_config.get("position_mode"),
            "max_tokens": model.backbone_config.get("max_tokens"),
            "space": model.space.id,
            "licences": self.licences,
            "files": [
                {
                    "name": one.name,
                    "bytes": one.stat().st_size,
                    "sha256": hashes.get(one.name),
                }
                for one in model_files(self.info.path)
            ],
        }


def model_details(name_or_path: str | Path) -> ModelDetails:
    """Return what a model is; raises ModelNotFound and BadCheckpoint."""
    folder = model_folder(name_or_path)
    description = described(folder)
    return ModelDetails(info=model_info(folder), description=description)
