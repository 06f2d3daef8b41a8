"""Names lie where a user looks for them, and what is imported for them is no more than it takes."""

from __future__ import annotations

import subprocess
import sys

import ccl.codecs
import ccl.model
import ccl.text


def loaded(code: str) -> set[str]:
    """Packages that a fresh interpreter has loaded after the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_what_is_published_is_exported() -> None:
    for module, names in (
        (ccl.codecs, ("WanVideo", "MMAudio", "LTX2Audio")),
        (ccl.text, ("UMT5",)),
        (ccl.model, ("load_wan", "load_stream", "LoadReport")),
    ):
        assert set(names) <= set(module.__all__) and all(hasattr(module, name) for name in names)


def test_importing_ccl_imports_neither_torch_nor_lightning() -> None:
    assert not loaded("import ccl; ccl.load") & {"torch", "lightning", "numpy"}


def test_importing_the_parts_and_what_generates_imports_no_other_peoples_networks() -> None:
    """torchmetrics alone takes more than two seconds, with transformers and scipy that it imports."""
    code = "import ccl.codecs, ccl.text, ccl.model, ccl.cli.verbs, ccl.cli.parts, ccl.generation.generate"
    assert not loaded(code) & {"diffusers", "transformers", "lightning", "torchmetrics", "ftfy"}
