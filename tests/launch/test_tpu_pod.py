"""launch/tpu_pod.sh: the commands to Google Cloud, in order, and what is said when one fails."""

import signal
import time

import pytest

ABSENT = ("ERROR: (gcloud) NOT_FOUND: no such resource\n", 1)
DESCRIBE, CREATE, DELETE = (
    "queued-resources describe",
    "queued-resources create",
    "resources delete",
)
SHARED = "/mnt/avt-shared"
TRAIN = ["--config", "vggsound", "--workdir", f"{SHARED}/run"]
NFS = ["--nfs", "10.0.0.2:/runs"]


@pytest.fixture
def cloud(machine):
    """A machine with gcloud and a committed checkout."""
    machine.program("gcloud")
    machine.commit()
    return machine


def state(name):
    return (f"{name}\n", 0)


def status(*states):
    """What `tpu_worker.sh status` says on each worker, among what gcloud says."""
    lines = [f"avt-status host{number} {state}\n" for number, state in enumerate(states)]
    return ("SSH: Attempting to connect to worker 0...\n" + "".join(lines), 0)


def pod(cloud, command, *options, train=()):
    arguments = [
        "--zone",
        "us-east5-b",
        "--poll",
        "0",
        *options,
        *(["--", *train] if train else []),
    ]
    return cloud.run("tpu_pod.sh", command, "p1", *arguments)


def all_of(cloud, *options, train=TRAIN):
    return pod(cloud, "all", "--type", "v6e-16", *NFS, *options, train=train)


def kinds(calls):
    """The calls in few words."""
    names = {
        DESCRIBE: "look", CREATE: "create", DELETE: "delete", "worker.sh setup": "setup",
        "worker.sh start": "start", "worker.sh status": "status", "worker.sh stop": "stop",
        "tail -n": "log", "train.log": "keep log", "tpu-vm scp": "copy",
    }  # fmt: skip
    found = []
    for call in calls:
        text = " ".join(call)
        found.append(next(name for words, name in names.items() if words in text))
    return found


def goes_well(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("WAITING_FOR_RESOURCES"), state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("running", "running"), status("exited 0"))


def test_all_steps_in_order(cloud):
    goes_well(cloud)
    ran = all_of(cloud)
    assert ran.returncode == 0, ran.stderr
    calls = cloud.calls()
    assert kinds(calls) == [
        "look", "create", "look", "look", "copy", "setup", "start", "look", "status", "look",
        "status", "keep log", "delete", "look",
    ]  # fmt: skip
    assert calls[1] == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "p1", "--node-id=p1",
        "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--zone=us-east5-b",
    ]  # fmt: skip
    assert "p1 is WAITING_FOR_RESOURCES" in ran.stdout
    assert all("--zone=us-east5-b" in call for call in calls)
    assert all("--worker=all" in call for call in calls if "ssh" in call)
    assert {"--force", "--quiet"} <= set(calls[-2])


@pytest.mark.parametrize(
    "options", [[], ["--spot", "--project", "my-p", "--create-arg=--tags=a b"]]
)
def test_dry_run_is_what_runs(cloud, nasty, options):
    train = [*TRAIN, *nasty]
    shown = all_of(cloud, *options, "--dry-run", train=train)
    assert shown.returncode == 0, shown.stderr
    assert cloud.calls() == []
    assert not (cloud.checkout / "runs").exists()
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("exited 0"))
    ran = all_of(cloud, *options, train=train)
    assert ran.returncode == 0, ran.stderr
    calls = cloud.calls()
    # At the end it looks whether something is left.
    assert kinds(calls[-1:]) == ["look"]
    cloud.shell("set +e\n" + shown.stdout)
    assert cloud.calls() == calls[:-1]


def test_the_commit_goes_to_the_workers(cloud):
    (cloud.checkout / "launch" / "local.sh").write_text("changed")
    ran = pod(cloud, "setup")
    assert ran.returncode == 0
    assert "changes that are not committed do not reach the workers" in ran.stderr
    copy = next(call for call in cloud.calls() if "scp" in call)
    listing = cloud.shell(f"tar -xzOf {copy[5]} avt/launch/local.sh").stdout
    assert listing == cloud.shell("git show HEAD:launch/local.sh").stdout != "changed"


def test_a_repository_is_cloned(cloud):
    ran = pod(cloud, "setup", "--repo", "https://x.example/a b.git", "--commit", "v1")
    assert ran.returncode == 0
    calls = cloud.calls()
    assert kinds(calls) == ["setup", "look"]
    line = calls[0][-2].removeprefix("--command=")
    assert r"git clone --quiet -- https://x.example/a\ b.git avt" in line
    assert "git -C avt checkout --quiet --detach v1 &&" in line


@pytest.mark.parametrize(
    "match, advice",
    [
        (CREATE, "Check the type, the zone and the quota"),
        ("tpu-vm scp", "Run the same command again"),
        ("worker.sh setup", "Run the same command again"),
        ("worker.sh start", "Run the same command again"),
        (DELETE, "The pod may still be there and cost money"),
    ],
)
def test_every_step_may_fail(cloud, match, advice):
    cloud.rule("gcloud", match, ("ERROR: no quota\n", 9))
    goes_well(cloud)
    ran = all_of(cloud)
    assert ran.returncode == 9
    failed = next(line for line in ran.stderr.splitlines() if line.startswith("avt: error"))
    assert match.split(".")[0] in failed.replace("\\ ", " ")
    assert "failed with exit code 9" in failed
    assert advice in failed
    assert "bash launch/tpu_pod.sh delete p1 --zone us-east5-b" in ran.stderr
    assert "costs money" in ran.stderr
    assert kinds(cloud.calls()).count("delete") == (match == DELETE)


def test_gcloud_without_access(cloud):
    cloud.rule("gcloud", DESCRIBE, ("ERROR: you do not have permission\n", 1))
    ran = all_of(cloud)
    assert ran.returncode == 1
    assert "you do not have permission" in ran.stderr
    assert "Whether the pod is there is not known" in ran.stderr
    assert "create" not in kinds(cloud.calls())


def test_a_request_that_fails(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("FAILED"))
    ran = all_of(cloud)
    assert ran.returncode == 1
    assert "the request for p1 has failed" in ran.stderr
    assert "It costs nothing" in ran.stderr
    assert set(kinds(cloud.calls())) == {"look", "create"}


@pytest.mark.parametrize(
    "code, said",
    [(2, "refused its arguments"), (143, "has saved a checkpoint"), (1, "the log above says why")],
)
def test_the_training_fails(cloud, code, said):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("exited 0", f"exited {code}"))
    cloud.rule("gcloud", "tail -n", ("the last words\n", 0))
    ran = all_of(cloud)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "the last words" in ran.stdout
    assert "costs money" in ran.stderr
    assert "delete" not in kinds(cloud.calls())


def test_workers_that_hang_after_one_failed_are_stopped(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("running", "exited 3"))
    ran = all_of(cloud)
    assert ran.returncode == 3
    assert kinds(cloud.calls()).count("stop") == 1


def test_a_connection_may_come_back(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    lost = ("ssh: connection refused\n", 255)
    cloud.rule(
        "gcloud",
        "worker.sh status",
        *[lost] * 4,
        status("running"),
        *[lost] * 4,
        status("exited 0"),
    )
    assert all_of(cloud).returncode == 0


def test_a_connection_may_stay_away(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", ("ssh: connection refused\n", 255))
    ran = all_of(cloud)
    assert ran.returncode == 1
    assert "5 times in a row" in ran.stderr
    assert "costs money" in ran.stderr


def test_a_spot_pod_is_asked_for_again(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"), state("ACTIVE"), state("SUSPENDED"),
               ABSENT, state("SUSPENDING"), ABSENT, state("ACTIVE"))  # fmt: skip
    cloud.rule("gcloud", "worker.sh status", status("running"), status("exited 0"))
    ran = all_of(cloud, "--spot")
    assert ran.returncode == 0, ran.stderr
    calls = cloud.calls()
    assert kinds(calls) == [
        "look", "create", "look", "copy", "setup", "start", "look", "status", "look", "delete",
        "look", "create", "look", "delete",
        "look", "create", "look", "copy", "setup", "start", "look", "status",
        "keep log", "delete", "look",
    ]  # fmt: skip
    assert "restart 2 of 10" in ran.stdout
    creations = [call for call in calls if "create" in call]
    assert all("--spot" in call for call in creations)
    starts = [call for call in calls if "worker.sh start" in " ".join(call)]
    assert starts[0] == starts[1]


def test_a_spot_pod_that_goes_while_it_is_set_up(cloud):
    cloud.rule(
        "gcloud", DESCRIBE, ABSENT, state("ACTIVE"), state("SUSPENDING"), ABSENT, state("ACTIVE")
    )
    cloud.rule("gcloud", "worker.sh setup", ("lost\n", 255), ("", 0))
    cloud.rule("gcloud", "worker.sh status", status("exited 0"))
    assert all_of(cloud, "--spot").returncode == 0
    assert kinds(cloud.calls()).count("create") == 2


def test_a_training_that_is_stopped_by_the_end_of_its_pod(cloud):
    """The processes get SIGTERM before the pod shows as suspended."""
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"), state("ACTIVE"), state("SUSPENDING"),
               ABSENT, state("ACTIVE"))  # fmt: skip
    cloud.rule("gcloud", "worker.sh status", status("exited 143"), status("exited 0"))
    assert all_of(cloud, "--spot").returncode == 0
    assert kinds(cloud.calls()).count("create") == 2


def test_restarts_have_a_limit(cloud):
    cloud.rule("gcloud", DESCRIBE, *[ABSENT, state("SUSPENDED")] * 3, ABSENT)
    ran = all_of(cloud, "--spot", "--max-restarts", "2")
    assert ran.returncode == 1
    assert "taken away again after 2 restarts, the limit (--max-restarts)" in ran.stderr
    calls = kinds(cloud.calls())
    assert calls.count("create") == calls.count("delete") == 3


def test_without_spot_nothing_is_asked_for_again(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("SUSPENDED"))
    ran = all_of(cloud)
    assert ran.returncode == 1
    assert "was taken away (state SUSPENDED)" in ran.stderr
    assert kinds(cloud.calls()).count("create") == 1


def test_the_same_command_goes_on(cloud):
    """The pod is there and trains: neither is made anew, nor the code under it replaced."""
    cloud.rule("gcloud", DESCRIBE, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("running"), status("exited 0"))
    assert all_of(cloud, "--keep").returncode == 0
    assert kinds(cloud.calls()) == ["look", "look", "status", "start", "look", "status", "look"]


def test_an_interruption_says_what_goes_on(cloud):
    cloud.rule("gcloud", DESCRIBE, ABSENT, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("running"))
    arguments = ["all", "p1", "--zone", "z", "--type", "v6e-16", *NFS, "--poll", "600"]
    arguments += ["--", *TRAIN]
    process = cloud.start("tpu_pod.sh", *arguments)
    for line in process.stdout:
        if "Waiting until" in line:
            break
    while "worker.sh status" not in (cloud.bin / "calls.jsonl").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "A training that was started goes on. It costs money" in err
    assert "delete" not in kinds(cloud.calls())


def test_results_are_fetched(cloud):
    goes_well(cloud)
    ran = pod(cloud, "all", "--type", "v6e-8", train=["--config", "c", "--workdir=runs/a"])
    assert ran.returncode == 0, ran.stderr
    calls = [call for call in cloud.calls() if "--recurse" in call]
    assert [call[5:8] for call in calls] == [["p1:runs/a", "runs/p1", "--recurse"]]
    assert pod(cloud, "fetch", *NFS, "--workdir", "a", "--to", "here").returncode == 0
    (call,) = cloud.calls()
    assert call[5:8] == [f"p1:{SHARED}/a", "here", "--recurse"]
    assert "--worker=0" in call


def test_a_run_folder_on_a_share_is_fetched_only_when_asked(cloud):
    goes_well(cloud)
    assert all_of(cloud, "--keep", "--to", "here").returncode == 0
    calls = [call for call in cloud.calls() if "--recurse" in call]
    assert [call[5:8] for call in calls] == [[f"p1:{SHARED}/run", "here", "--recurse"]]


def test_what_was_not_fetched_is_not_deleted(cloud):
    goes_well(cloud)
    cloud.rule("gcloud", "--recurse", ("broken pipe\n", 1))
    ran = all_of(cloud, "--to", "here")
    assert ran.returncode == 1
    assert "The pod still has the results" in ran.stderr
    assert "delete" not in kinds(cloud.calls())


def test_status_of_each_worker(cloud):
    cloud.rule("gcloud", DESCRIBE, state("ACTIVE"))
    cloud.rule("gcloud", "worker.sh status", status("running", "exited 1"))
    ran = pod(cloud, "status")
    assert "host0: running" in ran.stdout
    assert "host1: exited 1" in ran.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "unknown command ''"),
        (["all"], "the name of the pod is missing"),
        (["all", "-p"], "the name of the pod is '-p'"),
        (["all", "p1", "--type", "v6e-16"], "--zone is missing"),
        (["all", "p1", "--zone", "-z"], "--zone is '-z'"),
        (["create", "p1", "--zone", "z"], "--type is missing"),
        (["create", "p1", "--zone", "z", "--type", "x9-1"], "name one with --runtime"),
        (
            ["create", "p1", "--zone", "z", "--type", "v6e-8", "--create-arg=x"],
            "it must be an option",
        ),
        (["create", "p1", "--zone", "z", "--type", "v6e-8", "--", "x"], "only run and all take"),
        (["run", "p1", "--zone", "z"], "no arguments for 'avt train'"),
        (["setup", "p1", "--zone", "z", "--commit", "--x"], "--commit is '--x'"),
        (["setup", "p1", "--zone", "z", "--poll", "soon"], "--poll is 'soon'"),
        (["fetch", "p1", "--zone", "z"], "fetch needs --workdir"),
        (["all", "p1", "--zone", "z", "--type", "v6e-8", "--", "--x"], "name no --workdir"),
        (
            ["all", "p1", "--zone", "z", "--type", "v6e-8", "--spot", "--", "--workdir", "a"],
            "a Spot pod takes its disks along",
        ),
        (
            ["all", "p1", "--zone", "z", "--type", "v6e-16", "--", "--workdir", "a"],
            "a pod of --type v6e-16 may have more than one worker",
        ),
        (["run", "p1", "--zone", "z", "--", "--workdir", "a"], "run needs the --type"),
        (
            ["fetch", "p1", "--zone", "z", "--to", "t", "--workdir", "gs://my-b"],
            "--workdir is 'gs://my-b'; it must be gs://BUCKET/FOLDER",
        ),
        (["run", "p1", "--zone", "z", *NFS, "--shared", "--", "--workdir=a"], "exclude each other"),
    ],
)
def test_mistakes(cloud, arguments, said):
    ran = cloud.run("tpu_pod.sh", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert cloud.calls() == []


def test_without_gcloud(machine):
    ran = machine.run("tpu_pod.sh", "delete", "p1", "--zone", "z")
    assert ran.returncode == 2
    assert "'gcloud' was not found; install the Google Cloud CLI" in ran.stderr
