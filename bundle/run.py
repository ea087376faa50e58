"""Installs, tests and measures; ``run.sh`` starts it on the other machine.

Every step has its own time limit. ``results.json`` and ``results.md`` are rewritten after each, so
that a machine that is taken away leaves what was done.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steps import Alternatives, Command, Plan, Step, steps

_FOLDER = Path(__file__).resolve().parent
_INSTALLATION_SECONDS = 180
_MOST_LINES = 30

Row = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if a step failed."""
    args = _parser().parse_args(arguments)
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    plan = Plan(args.device, args.small, _FOLDER, output)
    todo = [step for step in steps(plan) if not args.only or step.name in args.only]
    done: list[dict[str, Any]] = []
    start = time.perf_counter()
    try:
        install(_FOLDER / "wheels", _FOLDER / "site")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"run.sh: the wheels cannot be installed: {error}")
    print(f"Installed in {time.perf_counter() - start:.0f} s", flush=True)
    for step in todo:
        done.append(run_step(step, args.patience * step.seconds, output))
        write_results(done, output)
        print("{name}: {status}, {seconds} s".format(**done[-1]), flush=True)
    return int(any(step["status"] != "passed" for step in done))


def _parser() -> argparse.ArgumentParser:
    names = [step.name for step in steps(Plan("cpu", True, _FOLDER, _FOLDER))]
    parser = argparse.ArgumentParser(prog="run.sh", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="(cuda)")
    parser.add_argument("--small", action="store_true", help="small models, few repeats: a trial")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (results)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="STEP", help=", ".join(names))
    parser.add_argument(
        "--patience", type=float, default=1.0, metavar="FACTOR", help="of all time limits (1)"
    )
    return parser


def install(wheels: Path, site: Path) -> None:
    """Installs all wheels into a folder of their own, once."""
    if site.is_dir():
        return
    # A folder that is only half filled must not be taken for the whole.
    begun = site.with_name(f"{site.name}.begun")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    offline = ("--no-deps", "--no-index", "--target", str(begun))
    packages = sorted(map(str, wheels.glob("*.whl")))
    # Detectron2's wheel bears the tag of Python 3.10, and has a package `tools` that is none of it.
    detectron2 = [wheel for wheel in packages if Path(wheel).name.startswith("sal_detectron2-")]
    others = [wheel for wheel in packages if wheel not in detectron2]
    any_tag = ("--python-version", "3.10", "--only-binary=:all:")
    for extra, chosen in ((any_tag, detectron2), ((), others)):
        if chosen:
            command = [*pip, *offline, *extra, *chosen]
            subprocess.run(command, check=True, timeout=_INSTALLATION_SECONDS)
    shutil.rmtree(begun / "tools", ignore_errors=True)
    begun.rename(site)


def run_step(step: Step, limit: float, output: Path) -> dict[str, Any]:
    """Runs the work of a step until it is done or its time is up.

    Returns:
        ``name``, ``status`` ("passed", "failed" or "out of time"), ``seconds``, ``rows`` of the
        tables that the commands printed, and ``tail``, the last lines if there is no table.
    """
    start = time.perf_counter()
    deadline = start + limit
    status, rows, tail = "passed", [], []
    log = output / f"{step.name}.log"
    log.unlink(missing_ok=True)
    for work in step.work:
        outcome, texts = run_alternatives(work, deadline, log)
        if outcome != "passed" and status != "out of time":
            status = outcome
        tables = [table_rows(text) for text in texts]
        rows += _added_up(work, tables)
        if not any(tables):
            tail += texts[0].strip().splitlines()[-_MOST_LINES:] if texts else []
    return {
        "name": step.name,
        "status": status,
        "seconds": round(time.perf_counter() - start, 1),
        "rows": rows,
        "tail": tail,
    }


def run_alternatives(work: Alternatives, deadline: float, log: Path) -> tuple[str, list[str]]:
    """Runs the commands of some work until one succeeds; returns the outcome and the outputs."""
    outcome, texts = "failed", []
    for command in work.commands:
        outcome, texts = _run(command, work.processes, deadline)
        with log.open("a") as file:
            file.write(f"\n$ python {' '.join(command)}\n" + "\n".join(texts))
        if outcome != "failed":
            break
    return outcome, texts


def _run(command: Command, count: int, deadline: float) -> tuple[str, list[str]]:
    if deadline <= time.perf_counter():
        return "out of time", []
    paths = [_FOLDER / "project", _FOLDER / "site", os.environ.get("PYTHONPATH", "")]
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=_FOLDER / "project",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(str(path) for path in paths if path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for _ in range(count)
    ]
    outcome, texts = "passed", []
    for process in processes:
        try:
            text, _ = process.communicate(timeout=max(0.1, deadline - time.perf_counter()))
        except subprocess.TimeoutExpired:
            # With the processes that it started.
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            outcome = "out of time"
        texts.append(text)
        if process.returncode and outcome == "passed":
            outcome = "failed"
    return outcome, texts


def table_rows(text: str) -> list[Row]:
    """The rows of the Markdown tables in a text, by the names of their columns."""
    rows: list[Row] = []
    names: list[str] = []
    for line in text.splitlines():
        if not re.fullmatch(r"\|.*\|", line.strip()):
            names = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not names:
            names = cells
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            rows.append(dict(zip(names, cells, strict=True)))
    return rows


def _added_up(work: Alternatives, tables: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of the first process, under the label, with the images a second of all."""
    if not all(tables):
        return []
    rows = [{"what": work.label} | row for row in tables[0]] if tables else []
    if work.processes > 1:
        for index, row in enumerate(rows):
            rate = sum(float(table[index]["images/s"]) for table in tables)
            row["images/s"] = f"{rate:.2f}"
    return rows


def write_results(done: Sequence[dict[str, Any]], output: Path) -> None:
    """Writes the steps so far as JSON and as Markdown."""
    (output / "results.json").write_text(json.dumps(list(done), indent=1))
    parts = ["# Results"]
    for step in done:
        parts.append("## {name}: {status}, {seconds} s".format(**step))
        if step["rows"]:
            parts.append(_markdown(step["rows"]))
        if step["tail"]:
            parts.append("```\n" + "\n".join(step["tail"]) + "\n```")
    (output / "results.md").write_text("\n\n".join(parts) + "\n")


def _markdown(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(row.get(name, "-") for name in names) + " |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
