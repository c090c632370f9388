"""Hook of the build: compiles the runtime's kernels where there is a C compiler.

Without one the package is installed all the same, and its runtime says what is missing.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_BUILD = "src/sparsemend/runtime/build.py"


class Kernels(BuildHookInterface[Any]):
    """Adds the library to wheels, and puts it beside the sources for editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name != "wheel":
            return
        path = Path(self.root) / _BUILD
        spec = importlib.util.spec_from_file_location("sparsemend_kernels", path)
        assert spec is not None
        assert spec.loader is not None
        kernels = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
        try:
            library = kernels.build()
        except (RuntimeError, OSError) as error:
            self.app.display_warning(f"the sparse runtime's kernels are not built: {error}")
            return
        # Of this kind of machine, but of no version of Python: ctypes loads it.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(str(library.relative_to(self.root)))
