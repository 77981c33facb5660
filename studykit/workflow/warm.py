"""Notebooks that start warm: forked from one process that has imported torch and the rest once, for a whole study.

    Snakemake --- this process (the server) --- papermill --- kernel      each arrow from the server on is a fork
              \\- shell --- client (`papermill.execute`), which waits for the forked papermill

A cold start costs a notebook several seconds of CPU for imports alone. `studykit run` on this machine starts the server
with Snakemake, and it ends with Snakemake. What is forked is what would have been started: the same processes, under
the same watchdogs, with the environment, directory and output that Snakemake gave the client.

- The server imports what a notebook's library files import from other packages, and nothing of studykit: a kernel
  imports the library as it is on disk, as a cold one does.
- It never computes, so no thread pool exists in it; with a thread that a fork would lose, it does not fork.
- A notebook starts cold where there is no server, where the server has died, and where it does not fork.
- On hosts with a GPU there is no server: CUDA does not survive a fork.

`STUDYKIT_WARM=0` turns it off.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from studykit.runs import code_digest, process
from studykit.workflow.papermill import ADDRESS, is_mine, save_sparingly

SWITCH = "STUDYKIT_WARM"  # 0: every notebook starts cold
KERNEL = "studykit-kernel"  # what a forked kernel is called in `ps`, which shows 15 characters
KERNEL_MODULES = ("papermill.__main__", "ipykernel.kernelapp", "ipykernel.zmqshell", "matplotlib_inline.backend_inline")
FORK_SAFE = {"jemalloc_bg_thd"}  # threads, by name, that begin again in a fork: of the allocator in pyarrow


def start() -> subprocess.Popen | None:
    """Starts the server below this process, with which it ends; returns None where notebooks start cold."""
    if os.environ.get(SWITCH) != "1" or sys.platform != "linux" or process.gpus():
        return None
    os.environ[ADDRESS] = f"studykit-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{os.environ[ADDRESS]}")
        listener.listen()
        command = [sys.executable, "-m", "studykit.workflow.warm", str(listener.fileno())]
        # Libraries that count threads when they are imported find one; a kernel sets its own number for torch.
        inline = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        Path("logs").mkdir(exist_ok=True)
        with open("logs/warm.txt", "wb") as log:
            return subprocess.Popen(
                command,
                env=process.ENVIRONMENT | os.environ | inline,
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,  # never written to: its end says that this process has ended
                stdout=log,
                stderr=log,
            )


# The server


def serve(listener: socket.socket) -> tuple[dict[str, Any], list[int], socket.socket] | None:
    """Forks for every request; returns the request in the fork, and None in the server when Snakemake has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the notebooks; the server ends with Snakemake
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a fork tells its client itself how it ended
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        with connection:
            if not is_mine(connection) or (received := _receive(connection)) is None:
                continue
            request, descriptors = received
            import_for(request["arguments"], Path(request["directory"]))
            gc.freeze()  # else each collection in a fork reads, and so copies, half a million objects of the libraries
            if not lost_threads() and os.fork() == 0:
                return request, descriptors, connection.dup()
            for descriptor in descriptors:
                os.close(descriptor)
    return None


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The request of a client with its three standard streams; None if the client has gone."""
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    content = connection.makefile("rb").read(int.from_bytes(size, "big"))
    return (json.loads(content), descriptors) if len(descriptors) == 3 and content else None


def import_for(arguments: list[str], home: Path) -> None:
    """Imports what papermill, a kernel and the notebook among the arguments need from other packages.

    Nothing is collected meanwhile: what is imported stays, and looking through it takes a fifth of the time.
    """
    gc.disable()
    try:
        _import_for(arguments, home)
    finally:
        gc.enable()


def _import_for(arguments: list[str], home: Path) -> None:
    if "papermill" not in sys.modules:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # see `papermill`
        for name in KERNEL_MODULES:
            importlib.import_module(name)
        del sys.modules["rfc3987_syntax"]
    for notebook in (home / argument for argument in arguments if argument.endswith(".ipynb")):
        if notebook.is_file():
            for module, names in other_packages(notebook):
                with contextlib.suppress(ImportError):  # the notebook will say so
                    importlib.import_module(module)
                    for name in names:
                        if not hasattr(sys.modules[module], name):
                            importlib.import_module(f"{module}.{name}")


def other_packages(notebook: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the modules of other packages, with names in them, that a notebook's library files import at once.

    Imports inside functions are left out: most notebooks do without them.
    """
    code = "\n".join(code_digest.code_cells(notebook))
    imported: list[tuple[str, list[str]]]
    for file in code_digest.closure(code, without=()):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported = [(alias.name, []) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported = [(node.module, [alias.name for alias in node.names])]
            else:
                continue
            own = {*sys.stdlib_module_names, code_digest.PACKAGE.name}
            yield from ((module, names) for module, names in imported if module.partition(".")[0] not in own)


def lost_threads() -> list[str]:
    """Returns the names of this process's other threads that a fork would lose."""
    tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    return sorted({(task / "comm").read_text().strip() for task in tasks} - FORK_SAFE)


# The forks


def run_papermill(request: dict[str, Any], descriptors: list[int], client: socket.socket) -> NoReturn:
    """Becomes the papermill of a request; its exit code is the last word to the client."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel = Kernel(client)
    _name("papermill")
    client.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=_end_with, args=(client,), daemon=True).start()
    process.watch()
    code: Any = 1
    atexit.register(lambda: client.sendall(f"{code}\n".encode()))  # the first to be registered is the last to be run
    local_provisioner: Any = importlib.import_module("jupyter_client.provisioning.local_provisioner")
    cold_start, local_provisioner.launch_kernel = local_provisioner.launch_kernel, kernel.launch
    kernel.cold_start = cold_start
    sys.argv = ["papermill", *request["arguments"]]
    save_sparingly()
    try:
        importlib.import_module("papermill.__main__").papermill()
    except SystemExit as ended:
        code = _exit_code(ended)
    except BaseException:
        traceback.print_exc()
    _end(code)


def _exit_code(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def _end(code: int) -> NoReturn:
    """Ends this fork after its exit functions; to free its copy of all libraries would take three seconds more."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _end_with(client: socket.socket) -> None:
    """Ends this process when its client has ended, as papermill itself would have."""
    if not client.recv(1):
        os.kill(os.getpid(), signal.SIGKILL)


def _name(text: str) -> None:
    """Names this process for `ps`: its command line remains the server's."""
    Path("/proc/self/comm").write_text(text)


class Kernel:
    """A kernel, forked before papermill has threads, that waits for its command; the child that papermill then has.

    It has what jupyter_client asks of a `subprocess.Popen`.
    """

    stdin = stdout = stderr = None

    def __init__(self, client: socket.socket):
        self.returncode: int | None = None
        self.cold_start: Any = None  # jupyter_client's own function
        self._here, there = socket.socketpair()
        if (pid := os.fork()) == 0:
            client.close()
            self._here.close()
            os.setsid()
            _become_kernel(there)
        self.pid = pid
        there.close()

    def launch(self, command: list[str], **options: Any) -> Any:
        """Starts a kernel as jupyter_client's `launch_kernel` does, if it is a module of this Python's."""
        module = command.index("-m") + 1 if "-m" in command else 0
        if command[0] != sys.executable or not module or self._here.fileno() < 0:
            return self.cold_start(command, **options)
        environment = dict(os.environ if options.get("env") is None else options["env"])
        environment["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel read it when the server imported it, too early
        arguments = [*command[module:], f"--IPKernelApp.parent_handle={os.getpid()}"]
        content = {"arguments": arguments, "environment": environment, "directory": options.get("cwd")}
        self._here.sendall(json.dumps(content).encode())
        self._here.close()  # there is one kernel
        return self

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become_kernel(papermill: socket.socket) -> NoReturn:
    """Waits for papermill's command, and becomes the kernel as `python -m ipykernel_launcher` would."""
    with papermill:
        content = papermill.makefile("rb").read()
    if not content:
        os._exit(0)  # papermill has ended without one
    command = json.loads(content)
    _name(KERNEL)
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["directory"] or ".")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # or all kernels would draw alike where nothing else sets a seed
    for name in [name for name in sys.modules if name.partition(".")[0] == code_digest.PACKAGE.name]:
        del sys.modules[name]  # the notebook imports the library as it is now
    module, *sys.argv[1:] = command["arguments"]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = _exit_code(ended)
    _end(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as own:
        forked = serve(own)
    if not forked:
        os._exit(0)  # at once: it has nothing to close
    run_papermill(*forked)
