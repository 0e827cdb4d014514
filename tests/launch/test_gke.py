"""launch/gke/submit.sh: the manifests as Kubernetes reads them."""

import re

import pytest
import yaml

IMAGE = "europe-docker.pkg.dev/p/r/avt:1"
TPU = ["tpu", "job1", "--image", IMAGE, "--accelerator", "tpu-v6e-slice", "--topology", "4x4"]
TPU += ["--volume", "runs", "--nodes", "4"]
GPU = ["gpu", "job1", "--image", IMAGE, "--accelerator", "nvidia-h100-80gb"]
GPU += ["--volume", "runs", "--nodes", "2"]
WORKDIR = ["--workdir", "/runs/a"]
ONE = ["gpu", "j", "--image", IMAGE, "--accelerator", "nvidia-l4"]
GS = ["--workdir", "gs://my-b.example/runs/a"]


def manifest(machine, *arguments, train=WORKDIR):
    ran = machine.run("gke/submit.sh", *arguments, "--dry-run", "--", *train)
    assert ran.returncode == 0, ran.stderr
    return yaml.safe_load(ran.stdout)


def job_of(found):
    return found["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(found):
    return job_of(found)["template"]["spec"]


def as_kubernetes_reads(argument, variables):
    """Its expansion of arguments: $$ is $, $(NAME) a variable if there is one."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: (
            "$" if found[0] == "$$" else variables.get(found[1], found[0])
        ),
        argument,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [TPU, GPU])
def test_arguments_arrive_as_they_were_given(machine, nasty, kind):
    found = manifest(
        machine, *kind, train=[*nasty, *WORKDIR, "$(AVT_COORDINATOR)", "$$(HOME)", "- &a *b {c"]
    )
    container = pod_of(found)["containers"][0]
    variables = {"AVT_COORDINATOR": "wrong", "HOME": "wrong", "id": "wrong"}
    assert [as_kubernetes_reads(argument, variables) for argument in container["args"]] == [
        "train", *nasty, *WORKDIR, "$(AVT_COORDINATOR)", "$$(HOME)", "- &a *b {c",
    ]  # fmt: skip
    assert "command" not in container


@pytest.mark.parametrize("kind", [TPU, GPU])
def test_what_both_have(machine, kind):
    found = manifest(machine, *kind, "--max-restarts", "7", "--grace", "900")
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["name"] == "job1"
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert found["spec"]["network"]["enableDNSHostnames"] is True
    assert found["spec"]["replicatedJobs"][0]["replicas"] == 1
    job, pod = job_of(found), pod_of(found)
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == int(kind[-1])
    assert job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 900
    assert pod["containers"][0]["image"] == IMAGE
    # Refused arguments: no restart.
    rule = job["podFailurePolicy"]["rules"][0]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert found["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    shared = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[shared["/dev/shm"]]["emptyDir"] == {"medium": "Memory"}
    assert volumes[shared["/runs"]]["persistentVolumeClaim"] == {"claimName": "runs"}
    # The image's user may write to it.
    assert pod["securityContext"]["fsGroup"] == 1000
    assert "nodeName" not in pod and "tolerations" not in pod and "serviceAccountName" not in pod
    assert "labels" not in found["metadata"] and "metadata" not in job["template"]


def test_one_pod_needs_no_volume(machine):
    pod = pod_of(manifest(machine, *ONE, train=["--workdir", "a"]))
    assert [volume["name"] for volume in pod["volumes"]] == ["shm"]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["shm"]
    assert "securityContext" not in pod


@pytest.mark.parametrize("kind", [TPU, GPU])
def test_a_bucket(machine, nasty, kind):
    """All pods of any number have it, through the driver's container beside avt."""
    volume = kind.index("--volume")
    kind = [*kind[:volume], *kind[volume + 2 :], "--service-account", "writer"]
    pod = job_of(manifest(machine, *kind, train=[*nasty, *GS, "--x"]))["template"]
    annotations = pod["metadata"]["annotations"]
    assert annotations["gke-gcsfuse/volumes"] == "true"
    # Of what the container may need, the driver's default is less than a checkpoint.
    limits = {annotations[f"gke-gcsfuse/{what}-limit"] for what in ("memory", "ephemeral-storage")}
    assert limits == {"0"}
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    folder = "/mnt/avt-gcs/my-b.example"
    assert container["args"][-3:] == ["--workdir", f"{folder}/runs/a", "--x"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    csi = volumes[mounts[folder]]["csi"]
    assert csi["driver"] == "gcsfuse.csi.storage.gke.io"
    assert csi["volumeAttributes"]["bucketName"] == "my-b.example"
    assert csi["volumeAttributes"]["mountOptions"].split(",") == [
        "implicit-dirs", "metadata-cache-ttl-secs=0", "metadata-cache-negative-ttl-secs=0",
        "rename-dir-limit=200000", "enable-streaming-writes=false", "uid=1000", "gid=1000",
    ]  # fmt: skip
    dockerfile = (machine.root / "launch" / "Dockerfile").read_text()
    assert "--uid 1000" in dockerfile, "to whom the files belong"
    assert pod["spec"]["serviceAccountName"] == "writer"
    assert "securityContext" not in pod["spec"] and "/runs" not in mounts


def test_tpu(machine):
    pod = pod_of(manifest(machine, *TPU))
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod["containers"][0]["resources"] == {"limits": {"google.com/tpu": 4}}
    assert "env" not in pod["containers"][0]


def test_gpu(machine):
    pod = pod_of(manifest(machine, *GPU))
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    container = pod["containers"][0]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    env = {variable["name"]: variable for variable in container["env"]}
    # <JobSet>-<replicated job>-<job>-<pod>.<JobSet>, the names of JobSet's headless service.
    assert env["AVT_COORDINATOR"]["value"] == "job1-workers-0-0.job1:12345"
    assert env["AVT_NUM_PROCESSES"]["value"] == "2"
    field = env["AVT_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.mark.parametrize("kind", [TPU, GPU])
def test_options(machine, kind):
    options = ["--spot", "--queue", "q", "--service-account", "writer", "--namespace", "null"]
    found = manifest(machine, *kind, *options)
    assert found["metadata"]["namespace"] == "null"
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}
    pod = pod_of(found)
    assert pod["serviceAccountName"] == "writer"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


def test_what_is_shown_is_submitted(machine, tmp_path):
    machine.program("kubectl", '#!/bin/sh\necho "$@" >%s/told; cat >>%s/told\n' % ((tmp_path,) * 2))
    shown = machine.run("gke/submit.sh", *TPU, "--dry-run", "--", *WORKDIR)
    assert not (tmp_path / "told").exists()
    ran = machine.run("gke/submit.sh", *TPU, "--", *WORKDIR)
    assert ran.returncode == 0, ran.stderr
    head, _, body = (tmp_path / "told").read_text().partition("\n")
    assert head == "create --filename=-"
    assert shown.stdout == body + "# kubectl create --filename=- reads the above\n"
    assert "kubectl delete jobset job1" in ran.stdout
    assert "Nodes cost money" in ran.stdout


def test_a_failure_is_told(machine):
    machine.program("kubectl")
    machine.rule("kubectl", "create", ("AlreadyExists\n", 1))
    ran = machine.run("gke/submit.sh", *TPU, "--", *WORKDIR)
    assert ran.returncode == 1
    assert "kubectl create --filename=- failed with exit code 1" in ran.stderr
    assert "kubectl delete jobset job1 --namespace=default" in ran.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["cpu"], "unknown kind 'cpu'"),
        (["tpu"], "the name of the job is missing"),
        (["tpu", "--x"], "the name of the job is '--x'"),
        (["tpu", "a" * 41], "up to 40 lower-case letters"),
        (["tpu", "j", "--", "--x"], "--image is missing"),
        (["tpu", "j", "--image", "-i", "--", "--x"], "--image is '-i'"),
        ([*GPU, "--topology", "4x4", "--", "--x"], "GPU nodes have none"),
        ([*TPU, "--nodes", "3", "--", *WORKDIR], "has 16 chips, and --nodes 3"),
        ([*TPU, "--namespace", "a: b", "--", "--x"], "--namespace is 'a: b'"),
        ([*ONE, "--nodes", "2", "--", *WORKDIR], "give a --workdir at gs://, or --volume CLAIM"),
        ([*ONE, "--", *GS], "may only write to as a service account; give --service-account"),
        ([*TPU, "--service-account", "a", "--", *GS], "leave out --volume"),
        (
            [*ONE, "--service-account", "a", "--", "--workdir=gs://my-b"],
            "must be gs://BUCKET/FOLDER",
        ),
        (
            [*ONE, "--service-account", "a", "--", "--workdir", "gs://b'\"/a"],
            "must be gs://BUCKET/",
        ),
        (
            [*ONE, "--service-account", "a", "--", "--workdir", "gs://b\n- x/a"],
            "must be gs://BUCKET/",
        ),
        (
            [*ONE, "--service-account", "a", "--", "--workdir", "gs://@IMAGE@/a"],
            "must be gs://BUCKET/",
        ),
        ([*TPU, "--", "--workdir", "runs/a"], "it must be a path under /runs"),
        ([*TPU, "--", "--workdir", "/runs/../a"], "it must be a path under /runs"),
        ([*TPU, "--", "--workdir", "/runs/"], "it must be a path under /runs"),
        ([*TPU, "--", "--x"], "it must be a path under /runs"),
        ([*TPU, "--volume", "-v", "--", *WORKDIR], "--volume is '-v'"),
        (TPU, "no arguments for 'avt train'"),
        ([*TPU, "--dry-run", "--", *WORKDIR, "a\x07b"], "has a control character"),
        ([*TPU, "--", *WORKDIR], "'kubectl' was not found; install it"),
    ],
)
def test_mistakes(machine, arguments, said):
    ran = machine.run("gke/submit.sh", *arguments)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""
