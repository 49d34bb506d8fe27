# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One of two processes that draw a run: `python together.py RANK PORT PATH NUM_SAMPLES WHAT`."""

import sys

import jax

from numpyro_scores.long_runs import ZarrStore


class Full(ZarrStore):
    """A disk without room for the second chunk."""

    def append(self, group, variables, region):
        if region["draw"].start:
            raise OSError(28, "No space left on device")
        super().append(group, variables, region)


def main(rank, port, path, num_samples, what):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    # It makes arrays.
    from long_runs.helpers import run

    jax.config.update("jax_disable_most_optimizations", True)
    stores = {"memory": None, "full": Full(path) if rank else path}
    mesh = jax.make_mesh((2,), ("chains",))
    try:
        mcmc = run(num_chains=4, num_samples=num_samples, mesh=mesh, store=stores.get(what, path))
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        return
    # Each knows of all chains.
    print(mcmc.num_draws, mcmc.last_state.z["log_tau"].tolist(), mcmc.moments[0]["tau"], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
