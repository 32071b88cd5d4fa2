"""``mmsearch info``: what is installed here and what the engine would use."""

import mmsearch
from mmsearch.cli.options import AsJson
from mmsearch.cli.output import print_facts, print_json, wants_json

_LIBRARIES = (
    "torch",
    "transformers",
    "lancedb",
    "pyarrow",
    "faiss-cpu",
    "faiss-gpu",
    "pymupdf",
    "decord2",
    "rapidocr",
    "onnxruntime",
)


def info(as_json: AsJson = None) -> None:
    """Print versions and devices, for a bug report.

    For example:

    \b
        mmsearch info
    """
    import platform

    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    facts = {
        "mmsearch": mmsearch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(["cpu", *gpus]),
    }
    facts |= {name: version for name in _LIBRARIES if (version := _version(name))}
    if wants_json(as_json):
        print_json(facts)
    else:
        print_facts(facts)


def _version(name: str) -> str | None:
    from importlib import metadata  # 20 ms that --help need not pay

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
