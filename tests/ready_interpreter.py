"""An interpreter that has imported its libraries and runs each program in a child.

For the many tests that run exported files: importing NumPy, onnx and onnxruntime takes
most of a second, a fork does not. A child is as isolated as a new interpreter, but for
the libraries that are imported already.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_SERVER = """
import contextlib, json, os, runpy, sys, traceback
import numpy
with contextlib.suppress(ImportError):
    import onnxruntime
    from onnx import checker, shape_inference, version_converter

def run(argv, cwd, env):
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = argv
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            print(end.code, file=sys.stderr)
            return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = run(**json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ReadyInterpreter:
    """Stands in for the module `subprocess` where exported files are run."""

    TimeoutExpired = subprocess.TimeoutExpired
    DEVNULL = subprocess.DEVNULL

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-B", "-c", _SERVER]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def run(
        self, command: list[str], *, cwd: Path, env: dict[str, str], **_: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``python -I -B program arguments`` in a child."""
        assert command[:3] == [sys.executable, "-I", "-B"]
        asked = {"argv": command[3:], "cwd": str(cwd), "env": env}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        said = (cwd / "said.txt").read_bytes()
        return subprocess.CompletedProcess(command, code, b"", said)

    def close(self) -> None:
        """End it."""
        self._server.communicate()
