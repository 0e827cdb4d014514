"""How a process finds its job: options, environment, and what is wrong with them."""

import pytest

from avt_jax.errors import UserError
from avt_jax.training.processes.job import Job, find_job

TOLD = {"AVT_COORDINATOR": "host:1234", "AVT_NUM_PROCESSES": "4", "AVT_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    "mode,options,environment,expected",
    [
        ("auto", (None, None, None), {}, None),
        ("auto", ("host:1234", 2, 1), {}, Job("host:1234", 2, 1)),
        ("auto", ("10.0.0.2:80", 2, 0), TOLD, Job("10.0.0.2:80", 2, 0)),
        ("auto", (None, None, None), TOLD, Job("host:1234", 4, 3)),
        ("off", ("host:1234", 2, 1), TOLD, None),
        ("on", (None, None, None), {}, Job()),
        # Started by srun, with several tasks or with one.
        ("auto", (None, None, None), {"SLURM_STEP_NUM_TASKS": "8"}, Job()),
        ("auto", (None, None, None), {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ("auto", (None, None, None), {"SLURM_STEP_NUM_TASKS": ""}, None),
        ("auto", (None, None, None), {"TPU_WORKER_HOSTNAMES": "a,b"}, Job()),
        ("auto", (None, None, None), {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ("auto", (None, None, None), {"AVT_COORDINATOR": ""}, None),
    ],
)
def test_where_a_job_is_found(mode, options, environment, expected):
    assert find_job(mode, *options, environment) == expected


@pytest.mark.parametrize(
    "options,environment,message",
    [
        (("host:1234", None, None), {}, "needs --num-processes and --process-id, too"),
        ((None, 2, 1), {}, "needs --coordinator, too"),
        ((None, None, None), {"AVT_PROCESS_ID": "0"}, "needs AVT_COORDINATOR and AVT_NUM_PROC"),
        (("host", 2, 1), {}, "--coordinator 'host' is not HOST:PORT"),
        ((":1234", 2, 1), {}, "--coordinator ':1234' is not HOST:PORT"),
        (("host:1234", 2, 2), {}, "--process-id 2 is not one of 2 processes"),
        (("host:1234", 2, -1), {}, "--process-id -1 is not a number from 0 on"),
        (("host:1234", 0, 0), {}, "--process-id 0 is not one of 0 processes"),
        ((None, None, None), TOLD | {"AVT_NUM_PROCESSES": "two"}, "AVT_NUM_PROCESSES 'two' is not"),
    ],
)
def test_what_is_refused(options, environment, message):
    with pytest.raises(UserError, match=message):
        find_job("auto", *options, environment)
