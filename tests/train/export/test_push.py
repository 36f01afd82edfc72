"""Exports are uploaded by huggingface_hub; a server on loopback takes the place of the hub."""

import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from flax_resnet import load_run
from tests.conftest import ROOT, free_port
from train.export import hub
from train.export.output import file_names
from train.runtime.errors import UsageError

pytest.importorskip("huggingface_hub")

CODE = """
import sys
from train.export.hub import check_push, push
from train.runtime.cli import run_command

def main():
    check_push(*sys.argv[1:4])
    print(*push(*sys.argv[1:4], private=True), sep="\\n")

run_command(main)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The requests of a commit: small files are part of it, large ones go to a store before."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuse:
            self.reply({"error": "no write access"}, 403)
        elif self.path == "/api/repos/create":
            self.server.repository = json.loads(body)
            self.reply({"url": f"{self.server.url}/me/digits"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/digits/preupload/main":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith("tensors") else "regular" for path in files}
            answers = [
                {"path": path, "uploadMode": mode, "shouldIgnore": False}
                for path, mode in modes.items()
            ]
            self.reply({"files": answers})
        elif self.path == "/me/digits.git/info/lfs/objects/batch":
            upload = {"upload": {"href": f"{self.server.url}/store"}}
            objects = [one | {"actions": upload} for one in json.loads(body)["objects"]]
            self.reply({"transfer": "basic", "objects": objects})
        elif self.path == "/api/models/me/digits/commit/main":
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            self.reply({"commitUrl": f"{self.server.url}/me/digits/commit/1", "commitOid": "1"})
        else:
            self.reply({}, 404)

    def do_GET(self):
        self.reply({"error": "no such repository"}, 404)

    def do_PUT(self):
        self.server.store.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply({})

    def reply(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        encoded = json.dumps(content).encode()
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.refuse, server.store, server.tokens = False, [], set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path, digits_run):
    for file in file_names("huggingface", "model.safetensors"):
        (tmp_path / file).write_text(f'{{"content": "{file}"}}')
    card = hub.front_matter(load_run(digits_run), "transformers") + "# Card\n"
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "other.txt").write_text("not part of the export")
    return tmp_path


def upload(folder, url, **changes):
    """Run check_push and push as a command does."""
    env = os.environ | {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    env |= {"HF_TOKEN": "hf_test", "HF_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    arguments = ("me/digits", "huggingface", str(folder / "model.safetensors"))
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=env | changes,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_export_becomes_one_commit_of_a_private_repository(server, folder):
    done = upload(folder, server.url)
    assert done.returncode == 0, done.stderr
    assert f"to {server.url}/me/digits" in done.stdout
    assert server.repository["name"] == "digits" and server.repository["organization"] == "me"
    assert "private" in (server.repository.get("visibility"), *server.repository)
    assert server.tokens == {"Bearer hf_test"}
    weights = (folder / "model.safetensors").read_bytes()
    assert server.store == [weights]
    _, *lines = server.commit
    small = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }
    names = ("README.md", "config.json", "preprocessor_config.json", "model.safetensors.json")
    assert small == {name: (folder / name).read_bytes() for name in names}
    [large] = [line["value"] for line in lines if line["key"] == "lfsFile"]
    assert large["path"] == "model.safetensors"
    assert large["oid"] == hashlib.sha256(weights).hexdigest()


def test_front_matter_is_read_by_the_hubs_library(folder, digits_run):
    from huggingface_hub import ModelCard

    data = ModelCard.load(folder / "README.md").data
    assert data.library_name == "transformers" and data.pipeline_tag == "image-classification"
    [result] = data.eval_results
    with open(os.path.join(digits_run, "metrics.jsonl")) as file:
        rows = [json.loads(line) for line in file]
    top1 = [row["eval/top1"] for row in rows if "eval/top1" in row][-1]
    assert (result.dataset_name, result.metric_type) == ("digits", "accuracy")
    assert result.metric_value == pytest.approx(top1, abs=1e-4)


def test_metrics_of_several_classes_per_image_are_not_called_accuracy(shapes_run):
    from huggingface_hub import ModelCard

    run = load_run(shapes_run)
    results = ModelCard(hub.front_matter(run, "transformers")).data.eval_results
    with open(os.path.join(shapes_run, "metrics.jsonl")) as file:
        rows = [row for row in map(json.loads, file) if row["step"] == run.step]
    [logged] = [row for row in rows if "eval/f1_macro" in row]
    assert [(result.metric_type, result.metric_value) for result in results] == [
        ("f1", pytest.approx(logged["eval/f1_macro"], abs=1e-4)),
        ("roc_auc", pytest.approx(logged["eval/auroc_macro"], abs=1e-4)),
    ]


def test_refused_upload_is_one_line_with_advice(server, folder):
    server.refuse = True
    done = upload(folder, server.url)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    for words in ("error: cannot push to me/digits: ", "403", "hf auth login", str(folder)):
        assert words in done.stderr


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}, "cannot push to me/digits: "),
        ({"HF_HUB_OFFLINE": "1"}, "cannot push to me/digits: "),
        ({"HF_TOKEN": ""}, "--push needs a login to the hub: log in with"),
    ],
)
def test_unreachable_hub_is_one_line(folder, changes, message):
    done = upload(folder, "http://127.0.0.1:9", **changes)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert message in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "repository, format, output, message",
    [
        ("digits", "huggingface", "model.safetensors", "must be OWNER/NAME"),
        ("me/a b", "huggingface", "model.safetensors", "--push 'me/a b': "),
        ("me/digits", "stablehlo", "digits.stablehlo", "is for huggingface and timm"),
        ("me/digits", "timm", "digits.safetensors", "is for huggingface and timm"),
    ],
)
def test_invalid_requests_are_refused_before_the_export(repository, format, output, message):
    with pytest.raises(UsageError, match=message):
        hub.check_push(repository, format, output)


def test_command_refuses_private_without_push(commands, digits_run, tmp_path):
    output = tmp_path / "x.stablehlo"
    flags = ("--workdir", digits_run, "--format", "stablehlo", "--output", output, "--private")
    done = commands.call("train.export", *flags)
    assert done.returncode == 2 and "--private is for the repository of --push" in done.stderr
