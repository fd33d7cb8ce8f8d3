"""Progress of long loops: a bar with the time left on a terminal, occasional plain lines in a log file.

The same figures go to TensorBoard event files and to progress.jsonl, both in the command's log folder (`tensorboard
--logdir work/logs`).

    with Progress(args.logs, total=args.steps, unit="steps", done=step, settings=vars(args)) as progress:
        while step < args.steps:
            ...
            progress.update(step, loss=loss.detach())        # every step, cheap
            progress.record(step, bits_per_byte=figure)      # figures measured occasionally
"""

import json
import pathlib
import sys
import time
from typing import Any

import torch
from tqdm import tqdm

BAR_SECONDS = 1.0
LINE_SECONDS = 10.0
"""Number of seconds between reports, on a terminal and in a log file."""


class Progress:
    """Reports one run of a loop.

    logs: folder for event files and progress.jsonl, or None. Its name is the prefix of every line.
    total, done: end and start of the loop, in `unit`. If a run resumes (done > 0), points that the interrupted run
    wrote after `done` are dropped from TensorBoard.
    step: start of the horizontal axis (default: `done`).
    settings: recorded in progress.jsonl.
    seconds: interval between reports.

    `latest` holds the last figures.
    """

    def __init__(
        self,
        logs: pathlib.Path | None,
        total: float,
        unit: str,
        done: float = 0,
        step: int | None = None,
        settings: dict | None = None,
        seconds: float | None = None,
    ):
        self.name = logs.name if logs else ""
        self.total, self.unit, self.first, self.done = total, unit, done, done
        self.latest: dict[str, float] = {}
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        terminal = sys.stderr.isatty()
        self._seconds = seconds if seconds is not None else BAR_SECONDS if terminal else LINE_SECONDS
        self._bar = None
        if terminal:
            self._bar = tqdm(
                total=total, initial=done, desc=self.name, unit=f" {unit}", unit_scale=True, dynamic_ncols=True
            )
        self._writer = self._file = None
        if logs:
            from torch.utils.tensorboard import SummaryWriter  # Imported here because it takes a second to load.

            logs.mkdir(parents=True, exist_ok=True)
            resumed = int(done if step is None else step)
            self._writer = SummaryWriter(str(logs), purge_step=resumed + 1 if resumed else None)
            self._file = (logs / "progress.jsonl").open("a", encoding="utf8")
            plain = {k: str(v) for k, v in (settings or {}).items() if not callable(v)}
            self._write(
                {"event": "resume" if done else "start", "done": done, "total": total, "unit": unit, "settings": plain}
            )
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.close("end" if kind is None else "interrupted" if kind is KeyboardInterrupt else "error")

    def update(self, done: float, step: int | None = None, **scalars: float | torch.Tensor) -> None:
        """Reports that the loop reached `done`. Scalars are averaged over the interval between reports.

        step: value on TensorBoard's horizontal axis (default: `done`). Scalars may be detached one-element tensors. The
        tensors are read only when they are shown, so that steps do not wait for a GPU.
        """
        self.done = done
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if time.monotonic() - self._shown >= self._seconds or done >= self.total:
            self._show(int(done if step is None else step))

    def mean(self, name: str) -> float:
        """Returns a scalar's mean since the last report, or its last figure."""
        count = self._counts.get(name)
        return float(self._sums[name]) / count if count else self.latest[name]

    def record(self, step: int, **figures: Any) -> None:
        """Shows and writes figures measured at `step`, including nested ones."""
        self.print_line(json.dumps({"step": step, **figures}))
        self._write({"step": step, **figures})
        for name, value in flat(figures):
            if self._writer:
                self._writer.add_scalar(name, value, step)
        if self._writer:
            self._writer.flush()

    def print_line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def close(self, event: str = "end") -> None:
        """Ends the report. Calling it twice is allowed."""
        if self._bar is not None:
            self._bar.close()
        if self._file:
            self._write({"event": event, "done": self.done, "seconds": round(time.monotonic() - self._began, 1)})
            self._file.close()
        if self._writer:
            self._writer.close()
        self._bar = self._writer = self._file = None

    def _show(self, step: int) -> None:
        self._shown = time.monotonic()
        for name, total in self._sums.items():
            self.latest[name] = float(total) / self._counts[name]
        self._sums, self._counts = {}, {}
        figures = {k: float(f"{v:.5g}") for k, v in self.latest.items()}
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
            self._bar.update(self.done - self._bar.n)
        else:
            print(self._line(figures), flush=True)
        self._write({"step": step, "done": self.done, **figures})
        if self._writer:
            for name, value in self.latest.items():
                self._writer.add_scalar(name, value, step)

    def _line(self, figures: dict[str, float]) -> str:
        seconds = max(self._shown - self._began, 1e-9)
        rate = (self.done - self.first) / seconds
        left = max(0.0, self.total - self.done) / rate if rate else float("inf")
        shown = "".join(f", {k} {v:.4g}" for k, v in figures.items())
        whole = f"{self.done / self.total:.0%}" if self.total else "100%"
        speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        name = f"{self.name}: " if self.name else ""
        return f"{name}{self.done:,.6g}/{self.total:,.6g} {self.unit} ({whole}){shown}, {speed}/s, {span(left)} left"

    def _write(self, record: dict) -> None:
        if self._file:
            self._file.write(json.dumps({"time": round(time.time(), 1), **record}) + "\n")
            self._file.flush()


def span(seconds: float) -> str:
    """Returns a readable duration: 45 s, 12 min, 3.4 h."""
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flat(figures: Any, name: str = "") -> list[tuple[str, float]]:
    """Yields the numbers in nested dicts and lists with their paths: {"a": {"b": [1, 2]}} -> a/b/0, a/b/1."""
    if isinstance(figures, dict):
        return [pair for k, v in figures.items() for pair in flat(v, f"{name}/{k}" if name else str(k))]
    if isinstance(figures, list | tuple):
        return [pair for i, v in enumerate(figures) for pair in flat(v, f"{name}/{i}")]
    return [(name, float(figures))] if isinstance(figures, int | float) and not isinstance(figures, bool) else []
