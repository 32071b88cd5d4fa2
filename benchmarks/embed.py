"""Speed of latent reasoning: one backbone, the same inputs, every way of thinking.

    python benchmarks/embed.py                     tiny random networks on a CPU, a minute
    python benchmarks/embed.py --size 2b --device cuda --out RESULTS.json
    python benchmarks/embed.py --check             parity on this machine, nothing timed

On a bare GPU machine, from the root of the repository (no installation; torch, transformers,
numpy, pillow, safetensors and tokenizers are all it takes; less than ten minutes):

    export PYTHONUNBUFFERED=1; { timeout 200 python3 benchmarks/embed.py --check; python3 \
benchmarks/embed.py --size 2b --device cuda --total-seconds 370 --out $OUT/embed-2b-h200.json; \
} 2>&1 | tee $OUT/embed.log

Weights are random, because speed does not depend on their values, and so are pixels. Reasoners:
none, lame, plume-0, plume-4, plume-8 (latent steps), cot (our own written reasoning, batched,
every thought exactly as long) and generate (transformers' own, one item at a time, as the
papers measured it). All read the same prompt, as long as the published one of PLUME. A cell is
the network alone, from a collated batch to unit vectors; "end to end" is the embedder that users
have, from arrays of pixels. flops.py says how operations are counted. Times are medians,
reasoners in turn, after a warm-up. "by arithmetic" is the ratio of operations: what a reasoner
that reads more tokens cannot do better than once arithmetic is what takes the time.
"""

import argparse
import json
import shlex
import signal
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Neither has to be installed: the machine with the GPU may have no network.
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

import torch  # noqa: E402
from embed_speed.check import check  # noqa: E402
from embed_speed.inputs import INPUTS  # noqa: E402
from embed_speed.report import Findings, document, machine, table  # noqa: E402
from embed_speed.run import LATENT, WRITTEN, Plan, measure_all  # noqa: E402
from embed_speed.shapes import PROMPT_TOKENS, SIZES  # noqa: E402

from mmsearch.retriever.embedding.devices import pick_device, pick_dtype  # noqa: E402


def main() -> None:
    """Measure what was asked for, print a table, write the figures."""
    asked = arguments()
    signal.signal(signal.SIGTERM, _stop)  # what was found by then is shown
    device = pick_device(asked.device)
    dtype = pick_dtype(asked.dtype, device, small=False)
    torch.manual_seed(asked.seed)
    if asked.check:
        raise SystemExit(check(device, seed=asked.seed))
    on_gpu = device.type == "cuda"
    size = asked.size or ("2b" if on_gpu else "tiny")
    plan = Plan(
        size=size,
        device=device,
        dtype=dtype,
        inputs=tuple(asked.inputs or INPUTS),
        reasoners=tuple(asked.reasoners or (*LATENT, *WRITTEN)),
        batches=tuple(asked.batches),
        cot_tokens=asked.cot_tokens,
        prompt_tokens=asked.prompt_tokens,
        max_batch=asked.max_batch or (1_024 if on_gpu else 4),
        cell_s=asked.max_seconds or (2.0 if on_gpu else 0.25),
        total_s=asked.total_seconds or (480.0 if on_gpu else 55.0),
        seed=asked.seed,
    )
    here = machine(device)
    command = shlex.join(["python", "benchmarks/embed.py", *sys.argv[1:]])
    found = Findings(size, command, plan.settings(), judged=on_gpu and size == "2b")

    def save() -> None:
        if asked.out is not None:
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(document(found, here), indent=2) + "\n")

    try:
        measure_all(plan, found, save)
    finally:
        save()
        print(table(found, here))


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, help="2b on a GPU, tiny on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--inputs", nargs="+", choices=INPUTS)
    parser.add_argument("--reasoners", nargs="+", choices=(*LATENT, *WRITTEN))
    parser.add_argument(
        "--batches", nargs="+", type=int, default=[], help="these instead of a search"
    )
    parser.add_argument("--cot-tokens", type=int, default=400, help="written for every item")
    parser.add_argument(
        "--prompt-tokens", type=int, default=PROMPT_TOKENS, help="around every item"
    )
    parser.add_argument("--max-batch", type=int, help="of the search")
    parser.add_argument("--max-seconds", type=float, help="timed for one cell, about")
    parser.add_argument("--total-seconds", type=float, help="what no longer fits is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="parity only; exit code 1 if it fails")
    parser.add_argument("--out", type=Path, help="JSON with every cell")
    return parser.parse_args()


def _stop(*_: object) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of libraries; what matters here is in the table
    main()
