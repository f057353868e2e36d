"""From a trained network to the file that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from nsdbench.pretraining.tasks import Task
from nsdbench.pretraining.training import Recipe
from nsdbench.safeload import load_state
from nsdbench.sim import SIM_VERSION
from nsdbench.store import atomic_path, sha256_file


def ship(task: Task, recipe: Recipe, seed: int, folder: Path) -> str:
    """Write the trunk of a trained task as ``<weights id>.safetensors`` and return the SHA-256 of the file.

    Kernels and matrices are stored in half precision, vectors (biases, norms, statistics) in full. The file
    carries one JSON text, because the order of several would not be reproducible.
    """
    state = {
        name: (value.half() if value.ndim > 1 else value).contiguous()
        for name, value in task.trunk.state_dict().items()
    }
    card = {
        "net": recipe.name,
        "seed": seed,
        "steps": recipe.steps,
        "scenes": len(task.corpus),
        "sim_version": SIM_VERSION,
    }
    path = folder / f"{recipe.weights_id}.safetensors"
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"card": json.dumps(card, sort_keys=True)})
        temporary.chmod(0o644)  # safetensors leaves it to its owner alone
    return sha256_file(path)


def finished(module: nn.Module, weights_id: str, folder: Path) -> nn.Module:
    """Return ``module`` with trained weights from ``folder``, frozen, for networks that build on it."""
    state = load_state(folder / f"{weights_id}.safetensors")
    module.load_state_dict({name: value.to(module.state_dict()[name].dtype) for name, value in state.items()})
    return module.eval().requires_grad_(False)
