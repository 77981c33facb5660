"""Every benchmark runs at tiny shapes and writes what it says; how long it takes is no test's business."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = {"PYTHONPATH": str(BENCHMARKS.parent), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def quick(script: str, output: Path) -> tuple[dict, str]:
    done = run(script, "--quick", "--output", str(output))
    assert done.returncode == 0, done.stderr
    return json.loads((output / "benchmarks.json").read_text()), done.stdout


def numbers(value: object) -> list[float]:
    if isinstance(value, dict | list):
        return [n for item in (value.values() if isinstance(value, dict) else value) for n in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def test_speed_writes_every_variant_and_a_figure(tmp_path):
    content, table = quick("speed.py", tmp_path)
    speed = content["speed"]
    assert {"floor", "base, forward only", "single adapter", "fusion N=1", "fusion N=2"} < set(speed["variants"])
    width = speed["shape"]["hidden"]
    full = speed["shape"]["layers"] * (3 * width * width + 2 * width)
    assert speed["variants"]["floor"]["trainable"] == width
    assert speed["variants"]["fusion N=1"]["trainable"] == speed["variants"]["fusion N=2"]["trainable"] == full
    assert set(speed["summary"]) == {"members", "step_over_floor", "growth_per_adapter", "saved_mib_over_floor"}
    assert all(map(math.isfinite, numbers(content)))
    assert all(name in table for name in speed["variants"])
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text()


def test_decode_writes_the_same_text_folded(tmp_path):
    (tmp_path / "benchmarks.json").write_text('{"other": {"kept": true}}')
    content, _ = quick("decode.py", tmp_path)
    assert content["other"] == {"kept": True}
    assert set(content["decode"]["layer"]["in cache"]["ms"]) == {"textbook", "rank space", "folded"}
    assert set(content["decode"]["model"]["ms_per_token"]) == {"base", "fusion", "folded fusion"}
    assert content["decode"]["model"]["same_text"] is True
    assert all(map(math.isfinite, numbers(content)))


def test_packing_computes_the_same_loss(tmp_path):
    content, _ = quick("packing.py", tmp_path)
    packing = content["packing"]
    assert packing["tokens"]["packed"] < packing["tokens"]["padded"] and packing["loss_difference"] < 1e-5
    assert all(map(math.isfinite, numbers(content)))


def test_generate_writes_the_same_in_batches(tmp_path):
    content, _ = quick("generate.py", tmp_path)
    found = content["generate"]
    assert set(found["same"].values()) == {4} and found["distinct"] == 4
    assert all(map(math.isfinite, numbers(content)))


def test_gpu_runs_every_method_on_a_tiny_quantised_base(tmp_path):
    content, _ = quick("gpu.py", tmp_path)
    rows = content["gpu"]["bases"]["tiny"]
    methods = ["single adapter", "AdapterFusion", "AdvFusion phase 1", "AdvFusion phase 2"]
    assert sorted(rows) == sorted(methods + [f"{method}, checkpointing" for method in methods])
    assert all(row["step_ms"] > 0 for row in rows.values())


def test_intervals_hold_the_truth_about_as_often_as_they_say(tmp_path):
    """A hundred samples per case tell gross errors in one, and small ones in the mean of all."""
    content, table = quick("coverage.py", tmp_path)
    rows = content["coverage"]
    hard = {"mean, log-normal", "mean, nine of ten 0"}  # where fifty rows are too few
    intervals = [row["share"] for row in rows if row["kind"] == "interval" and row["what"] not in hard]
    tests = [row["share"] for row in rows if row["kind"] == "test"]
    assert 0.93 < sum(intervals) / len(intervals) < 0.97 and min(intervals) > 0.83
    assert 0.01 < sum(tests) / len(tests) < 0.07 and max(tests) < 0.15
    errors, power = ([row["share"] for row in rows if row["kind"] == kind] for kind in ("error", "power"))
    assert sum(errors) / len(errors) < 0.06 and max(errors) <= 0.2, "of 20 or 40 studies each"
    assert 0.65 < sum(power) / len(power) < 0.95
    assert all(row["what"] in table for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_without_one_says_so_in_a_sentence():
    done = run("gpu.py")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "needs a CUDA GPU" in done.stderr


def test_scoring_names_every_metric_and_makes_programs_that_parse():
    done = run("scoring.py", "--pairs", "2", "--lines", "50")
    assert done.returncode == 0, done.stderr
    for name in ("sacreBLEU", "B-Norm", "CodeXGLUE", "ROUGE-L", "chrF", "edit similarity", "CodeBLEU", "all metrics"):
        assert done.stdout.count(name) == 3
    code = "import scoring; p = scoring.pairs('{0}', 3, 50); print(scoring.score_texts(*p, '{0}')['parse_ok'].value)"
    for language in ("python", "java", "go"):
        environment = {"PYTHONPATH": f"{BENCHMARKS}:{BENCHMARKS.parent}", "PATH": "/usr/bin:/bin"}
        seen = subprocess.run(
            [sys.executable, "-c", code.format(language)], capture_output=True, text=True, env=environment
        )
        assert seen.stdout.strip() == "100.0", seen.stderr


def test_the_peer_shares_no_line_with_us():
    """Its environment holds torch and transformers and nothing of ours."""
    for script in ("peer.py", "measure.py"):
        assert "studykit" not in (BENCHMARKS / script).read_text()


def test_programs_have_a_speed_and_a_processor_time():
    done = run("programs.py", "--seconds", "0.01", "--languages", "python")
    assert done.returncode == 0, done.stderr
    lines = [line.rsplit(maxsplit=2) for line in done.stdout.splitlines()[3:]]
    assert [line[0] for line in lines] == ["python, hello", "python, tests"]
    assert all(float(speed) > 0 and 0 < float(cpu) < 1000 for _, speed, cpu in lines)


def test_a_base_identifies_edits_among_others_with_an_auc():
    done = run("identification.py", str(BENCHMARKS.parent / "params/tiny_base"), "--edits", "4", "--others", "3")
    assert done.returncode == 0, done.stderr
    assert "|among:4|chance:52.1|" in done.stdout and "MRR of the same edit" in done.stdout
    assert 0 <= float(done.stdout.split("AUC ")[1].split()[0]) <= 1
