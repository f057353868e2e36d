"""The command line answers fast: help loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "jinja2",
    "diffusers",
    "h5py",
    "pyarrow",
}


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert not HEAVY & loaded_after("import nsdbench.cli")


def test_help_loads_nothing_heavy() -> None:
    code = "from typer.testing import CliRunner\nfrom nsdbench.cli import app\nassert CliRunner().invoke(app, ['--help']).exit_code == 0"
    assert not HEAVY & loaded_after(code)


def test_models_loads_no_torch() -> None:
    code = "from typer.testing import CliRunner\nfrom nsdbench.cli import app\nassert CliRunner().invoke(app, ['metrics']).exit_code == 0"
    assert "torch" not in loaded_after(code)


def test_every_verb_has_help_with_an_example() -> None:
    from typer.main import get_command
    from typer.testing import CliRunner

    from nsdbench.cli import app

    for verb, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for args in [[verb, sub] for sub in getattr(command, "commands", {})] or [[verb]]:
            result = CliRunner().invoke(app, [*args, "--help"])
            assert result.exit_code == 0
            assert "Example" in result.output, args
            assert "--verbose" in result.output, args
