# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One of two processes that draw a run: `python together.py RANK PORT PATH NUM_SAMPLES WHAT`."""

import os
import signal
import sys

import jax

from numpyro_scores.long_runs import ZarrStore


class Full(ZarrStore):
    """A disk without room for the second chunk."""

    def append(self, group, variables, region):
        if region["draw"].start:
            raise OSError(28, "No space left on device")
        super().append(group, variables, region)


class Signals(ZarrStore):
    """Signals that come to one process while it stores its second chunk."""

    def __init__(self, path, signals):
        super().__init__(path)
        self._signals = signals

    def append(self, group, variables, region):
        super().append(group, variables, region)
        while self._signals and region["draw"].start:
            os.kill(os.getpid(), self._signals.pop())


SIGNALS = {
    "interrupted": [signal.SIGINT],
    "interrupted twice": [signal.SIGINT, signal.SIGINT],
    "killed": [signal.SIGKILL],
}


def main(rank, port, path, num_samples, what):
    # A process that is killed is noticed at the exit of the other.
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=20)
    # It makes arrays.
    from long_runs.helpers import run

    jax.config.update("jax_disable_most_optimizations", True)
    stores = {"memory": None}
    settings = {"num_samples": num_samples, "keep_warmup": what == "warmup"}
    if rank:
        stores |= {"full": Full(path)} | {w: Signals(path, own) for w, own in SIGNALS.items()}
    mesh = jax.make_mesh((2,), ("chains",))
    try:
        mcmc = run(num_chains=4, mesh=mesh, store=stores.get(what, path), **settings)
    except (Exception, KeyboardInterrupt) as error:
        print(type(error).__name__, error, flush=True)
        return
    # Each knows of all chains.
    print(mcmc.num_draws, mcmc.last_state.z["log_tau"].tolist(), mcmc.moments[0]["tau"], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
