"""One of two ranks with stuck data workers: rank 1 kills itself, rank 0 waits for nothing in particular."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from torch import distributed as dist
from torch.utils.data import DataLoader

from ssd_lightning.training.fault_tolerance.ranks import Lifeline, end_data_worker


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    trainer = SimpleNamespace(world_size=2, global_rank=rank, num_nodes=1)
    Lifeline().setup(trainer, None, "fit")  # type: ignore[arg-type]
    # More than a pipe holds, so that the workers wait until somebody reads it: nobody will.
    loader = DataLoader(
        [bytes(200_000)] * 100, batch_size=2, collate_fn=list, num_workers=2, worker_init_fn=end_data_worker
    )
    batches = iter(loader)
    next(batches)
    (folder / f"{rank}.pids").write_text(" ".join(str(worker.pid) for worker in batches._workers))
    dist.barrier()
    if rank == 1:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
