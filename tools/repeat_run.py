"""Train a tiny run, repeat it from its run directory, and compare all weights bit by bit.

    python tools/repeat_run.py --times 10

The first run is trained from overrides, the others by `--config-path RUN/.hydra`, each in a process of its own that is
forked off after the libraries are loaded. Further overrides are handed to the first run: `trainer.max_epochs=3`. Ends
with code 1 if a weight differs.
"""

import argparse
import hashlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

# Threads of this process would not live on in the forked ones, which would wait for them.
os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import torch

from ssd_lightning import train
from ssd_lightning.data.toy import write_toy_dataset

OVERRIDES = (
    "experiment=toy_tiny", "data.num_train=32", "data.num_val=4", "data.num_test=2", "data.side_px=96",
    "data.num_workers=0", "data.batch_size=8", "image_size=[64,64]", "trainer.max_epochs=2", "seed=0",
    "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
)  # fmt: skip


LOADED_ONCE = (
    "pytorch_lightning", "ssd_lightning.training", "ssd_lightning.models", "ssd_lightning.losses",
    "ssd_lightning.metrics.coco", "ssd_lightning.metrics.voc", "ssd_lightning.data.voc",
    "ssd_lightning.data.augmentation",
)  # fmt: skip
"""Libraries that the command loads when it needs them, which takes seconds."""


def run_in_child(folder: Path, name: str, overrides: Sequence[str]) -> Path:
    """Train in a forked process and give the run's directory.

    Raises:
        SystemExit: the run failed; its output is printed.
    """
    log = folder / f"{name}.log"
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            sys.argv = ["train", *overrides, f"hydra.run.dir=outputs/{name}"]
            train.main()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(f"{name} failed:\n{log.read_text()}")
    return folder / "outputs" / name


def digest_of_weights(run: Path) -> str:
    """Hash names, types and bytes of all weights of a run's last checkpoint."""
    digest = hashlib.sha256()
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="runs, the first one included")
    parser.add_argument("overrides", nargs="*", help="settings of the run, key=value")
    arguments = parser.parse_args()
    for name in LOADED_ONCE:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_toy_dataset(root / "datasets/toy", num_train=32, num_val=4, num_test=2, image_size_px=(96, 96))
        first = run_in_child(root, "run1", [*OVERRIDES, *arguments.overrides])
        digests = [digest_of_weights(first)]
        for number in range(2, arguments.times + 1):
            # A relative path, as a user types it.
            run = run_in_child(root, f"run{number}", ["--config-path", str(first.relative_to(root) / ".hydra")])
            digests.append(digest_of_weights(run))
            print(f"run {number}: {'the same' if digests[-1] == digests[0] else 'DIFFERS'}", flush=True)
    same = digests.count(digests[0])
    print(f"bit-identical: {same} of {len(digests)}")
    sys.exit(0 if same == len(digests) else 1)


if __name__ == "__main__":
    main()
