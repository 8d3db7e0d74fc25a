"""What a process of a load does: see loadrun.py, which starts it."""

import mmap
import pickle
import sys

from c1m.loadgen import Worker


def work(memory: int, parent: int) -> None:
    """memory: the descriptor of what is shared; parent: the process that has started this one. Its part is read from
    standard input.
    """
    worker = Worker(memory=mmap.mmap(memory, 0), **pickle.load(sys.stdin.buffer))
    worker.work(parent)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
