"""One rule per notebook, one job per run of a study: `studykit run params/quickstart.yaml` does all of it.

Plain Snakemake works too: `snakemake --configfile params/quickstart.yaml`. studykit/study/plan.py decides what is run;
a run's directory is named by its parameters. So a job is out of date when a run that it reads was run again, or when
its `code` changed: the notebook's code cells and every library file behind them that decides a number.
"""

import os
import shlex
import sys
from pathlib import Path

import yaml

sys.path.insert(0, workflow.basedir)
from studykit.report.pages import renderer_digest
from studykit.runs import code_digest, process
from studykit.study.family import load_plan
from studykit.study.parameters import STAGES

if not workflow.configfiles:
    raise WorkflowError("Name a study: --configfile params/quickstart.yaml")
STUDY_FILE = workflow.configfiles[-1]
PLANNED = load_plan(STUDY_FILE)
STUDY = PLANNED.study
RUNS = {run.name: run for run in PLANNED.runs}
GPUS = process.gpus()

os.environ["STUDYKIT_HOME"] = os.getcwd()
UNDER_COMMAND = "STUDYKIT_COMMAND" in os.environ  # which writes the report itself, also after a failure
os.environ.setdefault("STUDYKIT_COMMAND", process.name())
for name, value in process.ENVIRONMENT.items():
    os.environ.setdefault(name, value)
# The kernel `python3` of this very environment, cells saved as they finish, all output kept beside the log.
PYTHON = shlex.quote(sys.executable)
PAPERMILL = f"{PYTHON} -m studykit.workflow.papermill -k python3 -l python --cwd . --no-progress-bar --autosave-cell-every 5"


def needs(stage):
    return lambda wildcards: [f"{need.dir}/manifest.json" for need in RUNS[f"{stage}/{wildcards.run}"].needs]


def data_files(stage):
    return lambda wildcards: code_digest.data_files(stage, RUNS[f"{stage}/{wildcards.run}"].params)


def given(stage):
    # YAML, not JSON: papermill reads YAML 1.1, in which JSON's 1e-05 is a string and YAML's 1.0e-05 a number.
    return lambda wildcards: yaml.safe_dump(
        RUNS[f"{stage}/{wildcards.run}"].params, default_flow_style=True, sort_keys=False, width=10**9).strip()


NOTEBOOKS = [f"{run.dir}/notebook.ipynb" for run in RUNS.values()]
INDEX = f"reports/{STUDY.study}/index.html"


rule study:
    default_target: True
    input: NOTEBOOKS, [] if UNDER_COMMAND else INDEX


rule index:
    input: NOTEBOOKS
    output: INDEX
    params: code=renderer_digest(), study=repr(PLANNED)
    message: "report {output}"
    shell: "{PYTHON} -m studykit.cli report {STUDY_FILE:q} > /dev/null"


for stage, (notebook, _) in STAGES.items():
    rule:
        name: stage
        input: ancient(f"notebooks/{notebook}.ipynb"), needs(stage), data_files(stage)
        output: f"runs/{stage}/{{run}}/manifest.json", nb=f"runs/{stage}/{{run}}/notebook.ipynb"
        message: f"{stage} {{wildcards.run}}"
        log: nb=f"logs/{stage}/{{run}}.ipynb", text=f"logs/{stage}/{{run}}.txt"
        params: given=given(stage), code=code_digest.digest(Path("notebooks", f"{notebook}.ipynb"))
        # What most others wait for comes first: no core is left without work while the last fusion trains.
        priority: list(reversed(STAGES)).index(stage)
        threads: 1  # more make a small base no faster: they wait for each other, and may not spin beside other work
        resources: **({"gpu": 1} if GPUS and stage in process.GPU_STAGES else {})
        shell:
            "{PAPERMILL} {input[0]} {log.nb} -y {params.given:q} > {log.text} 2>&1"
            " && cp {log.nb} {output.nb}.part && sync {output.nb}.part && mv {output.nb}.part {output.nb}"
