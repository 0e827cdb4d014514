"""launch/tpu_pod.sh: where the run folder of a training is, as the workers are told."""

import shlex

import pytest

SHARED = "/mnt/avt-shared"
NFS = ["--nfs", "10.0.0.2:/runs"]


@pytest.fixture
def cloud(machine):
    """A machine with gcloud."""
    machine.program("gcloud")
    return machine


def start(cloud, *options, train):
    return cloud.run("tpu_pod.sh", "run", "p1", "--zone", "z", *options, "--", *train)


@pytest.mark.parametrize("given", [["--workdir", "a b"], ["--workdir=a b"]])
def test_a_share_is_mounted_before_the_training_starts(cloud, given):
    assert start(cloud, *NFS, train=["--config", "c", *given, "--x"]).returncode == 0
    line = cloud.calls()[0][-2].removeprefix("--command=")
    mount, training = line.split(" && ")
    assert mount == "bash avt/launch/tpu_worker.sh mount 10.0.0.2:/runs"
    words = shlex.split(training.partition("--config c ")[2])
    assert " ".join(words).replace("=", " ") == f"--workdir {SHARED}/a b --x"


def test_a_file_system_that_is_mounted_is_left_alone(cloud):
    train = ["--workdir", "/data/a"]
    assert start(cloud, "--shared", train=train).returncode == 0
    line = cloud.calls()[0][-2]
    assert "mount" not in line
    assert line.endswith("start --distributed on --workdir /data/a")


@pytest.mark.parametrize(
    "folder", ["/home/a", "../a", "a/../..", "~/a", f"{SHARED}/", SHARED + "x/a"]
)
def test_a_run_folder_beside_the_share(cloud, folder):
    ran = start(cloud, *NFS, train=["--workdir", folder])
    assert ran.returncode == 2
    assert f"with --nfs it must be relative to the share, or a path under {SHARED}" in ran.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(
    "share",
    ["-o:/a", "h", "h:a", "h:/", "h:/a b", "h:/a,exec", "h:/../a", "h:/a\n", "$(id):/a", " "],
)
def test_what_is_no_share(cloud, share):
    ran = start(cloud, "--nfs", share, train=["--workdir", "a"])
    assert ran.returncode == 2
    assert "it must be HOST:/SHARE" in ran.stderr
    assert cloud.calls() == []


GS = ["--workdir", "gs://my-b/runs/a"]


@pytest.mark.parametrize(
    "given", [["--workdir", "gs://my-b/runs/a"], ["--workdir=gs://my-b/runs/a/"]]
)
def test_a_bucket_is_mounted_before_the_training_starts(cloud, given):
    """Of a pod of any size, which need not be named."""
    assert start(cloud, train=["--config", "c", *given, "--x"]).returncode == 0
    line = cloud.calls()[0][-2].removeprefix("--command=")
    mount, training = line.split(" && ")
    assert mount == "bash avt/launch/tpu_worker.sh mount-bucket my-b"
    words = shlex.split(training.partition("--config c ")[2])
    assert " ".join(words).replace("=", " ") == "--workdir /mnt/avt-gcs/my-b/runs/a --x"


def test_options_of_gcsfuse_arrive_as_they_were_given(cloud):
    options = ["--gcsfuse-arg=--temp-dir=/a b;id", "--gcsfuse-arg=--log-severity=trace"]
    assert start(cloud, *options, train=GS).returncode == 0
    mount = cloud.calls()[0][-2].removeprefix("--command=").partition(" && ")[0]
    words = ["my-b", "--temp-dir=/a b;id", "--log-severity=trace"]
    assert shlex.split(mount)[3:] == words


def test_a_spot_pod_of_many_workers_may_have_its_run_folder_in_a_bucket(cloud, nasty):
    """What is shown is what runs, up to the copy of the results, for which no worker is asked."""
    cloud.commit()
    options = [
        "all",
        "p1",
        "--zone",
        "z",
        "--type",
        "v6e-16",
        "--spot",
        "--poll",
        "0",
        "--to",
        "here",
    ]
    options += ["--project", "my-p"]
    shown = cloud.run("tpu_pod.sh", *options, "--dry-run", "--", *GS, *nasty)
    assert shown.returncode == 0, shown.stderr
    assert cloud.calls() == []
    cloud.rule("gcloud", "resources describe", ("NOT_FOUND\n", 1), ("ACTIVE\n", 0))
    cloud.rule("gcloud", "worker.sh status", ("avt-status host exited 0\n", 0))
    ran = cloud.run("tpu_pod.sh", *options, "--", *GS, *nasty)
    assert ran.returncode == 0, ran.stderr
    calls = cloud.calls()
    copies = [call for call in calls if call[1] == "storage"]
    assert copies == [
        [
            "gcloud",
            "storage",
            "rsync",
            "--recursive",
            "gs://my-b/runs/a",
            "here/a",
            "--project=my-p",
        ]
    ]
    assert (cloud.checkout / "here" / "a").is_dir()
    cloud.shell("set +e\n" + shown.stdout)
    assert cloud.calls() == calls[:-1], "but for the last look at what is left"


def test_a_bucket_is_fetched_without_the_pod(cloud):
    ran = cloud.run(
        "tpu_pod.sh", "fetch", "p1", "--zone", "z", "--workdir", "gs://my-b/runs/a", "--to", "here"
    )
    assert ran.returncode == 0, ran.stderr
    assert cloud.calls() == [
        ["gcloud", "storage", "rsync", "--recursive", "gs://my-b/runs/a", "here/a"]
    ]
    cloud.rule("gcloud", "rsync", ("no access\n", 1))
    ran = cloud.run(
        "tpu_pod.sh", "fetch", "p1", "--zone", "z", "--workdir", "gs://my-b/runs/a", "--to", "here"
    )
    assert ran.returncode == 1
    assert "no access" in ran.stderr and "The bucket still has the results" in ran.stderr


@pytest.mark.parametrize(
    "url",
    [
        "gs://", "gs://my-b", "gs://my-b/", "gs://b/a", "gs://My-b/a", "gs://-b-/a", "gs://a..b/a",
        "gs://my b/a", "gs://my-b'/a", 'gs://my-b"/a', "gs://my-b;id/a", "gs://$(id)/a", "gs://`id`/a",
        "gs://my-b/a b", "gs://my-b/a;id", "gs://my-b/$(id)", "gs://my-b/../a", "gs://my-b/a/./b",
        "gs://my-b//a", "gs://my-b/a*", "gs://my-b/-a", "gs://my-b/a\n", "s3://my-b/a", "gs:///a",
        "GS://my-b/a", "gs://my-b/a#1", "gs://my-b/a?x",
    ],
)  # fmt: skip
def test_what_is_no_folder_of_a_bucket(cloud, url):
    ran = start(cloud, train=["--workdir", url])
    assert ran.returncode == 2
    shown = f"'{url}'" if url.isprintable() else "$'gs://my-b/a\\n'"
    assert f"--workdir is {shown}; it must be gs://BUCKET/FOLDER" in ran.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize(
    ("options", "workdir", "said"),
    [
        (NFS, "gs://my-b/a", "leave out --nfs and --shared"),
        (["--shared"], "gs://my-b/a", "leave out --nfs and --shared"),
        (["--gcsfuse-arg=--x", *NFS], "a", "--gcsfuse-arg is for a --workdir at gs://"),
        (["--gcsfuse-arg=x"], "gs://my-b/a", "it must be an option of gcsfuse"),
        (["--to", "-x"], "gs://my-b/a", "--to is '-x'"),
    ],
)
def test_what_a_bucket_excludes(cloud, options, workdir, said):
    ran = start(cloud, *options, train=["--workdir", workdir])
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert cloud.calls() == []
