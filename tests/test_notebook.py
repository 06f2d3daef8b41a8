"""The notebook runs from top to bottom in an empty folder, on a CPU, and lies here without what it shows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from helpers import ROOT

NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("default")  # of the kernel's own sockets and loops
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (the [dev] extra)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (the [dev] extra)")
    pytest.importorskip("espeakng_loader", reason="the world has no voice without the [world] extra")
    import nbformat

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # its `ccl`
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 5  # four rows of pictures and the losses
    assert len([output for output in outputs if "<audio" in output.get("data", {}).get("text/html", "")]) == 4
    assert (tmp_path / "runs" / "first" / "checkpoints" / "step=000050.ckpt").is_file()
    table = outputs[-1]["data"]["text/markdown"]
    assert "| Mouth ↑ | easy |" in table and "| Colours ↑ | hard |" in table
