"""What every test may use: tiny real bases, a web site, a bucket, servers, and an environment that reaches no other.

Knows nothing of Preface itself, but for how its processes spare Python's collector: the bases are saved by
transformers, as anybody's would be.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from flows.process import collector
from tests.servers.listener import listening

# Fixtures that are too long for this page.
pytest_plugins = ("tests.servers.object_store", "tests.servers.postgres")

# Property tests touch disks on machines that do other work: a slow example is no failure.
settings.register_profile("preface", deadline=None)
settings.load_profile("preface")

# The libraries read these at import, so they are set before any test module is collected.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # tiny matrices: a second thread costs more than it brings
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "DVC_NO_ANALYTICS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# A developer's own servers, folders and buckets are none of the tests' business.
for _name in (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_S3_ENDPOINT_URL",
    "PREFECT_API_URL",
    "PREFACE_BASES",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_RETRY_MODE",
    "AWS_MAX_ATTEMPTS",
):
    os.environ.pop(_name, None)

collector.tune_gc()

TinyBase = Callable[..., Path]


# Wide weights: at the libraries' own 0.02 a random model is so flat that a wrong position hardly moves its logits.
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
_ROTARY: dict[str, Any] = _SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
KINDS: dict[str, dict[str, Any]] = {
    # grouped-query heads, tied head
    "llama": _ROTARY | {"model_type": "llama", "tie_word_embeddings": True},
    # grouped-query heads, untied head, head size 16 where hidden / heads is 8
    "qwen": _ROTARY | {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": False},
    # learned positions, one key/value head for each query head
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 512,
        "initializer_range": 0.2,
    },
}
_CORPUS = (
    "Review: a gripping, funny and moving film from the first scene to the last. Sentiment: positive",
    "Review: a dull and lifeless mess, too long by half an hour. Sentiment: negative",
    "Article: shares fell as the bank reported a loss. Topic: business",
    "Article: the striker scored twice in the final. Topic: sports",
    "Decide whether the movie review is positive or negative.",
    "Abstract: we present a new method for the summarization of papers. Outcome: it beats the baselines.",
)


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    """A factory of tiny random bases, saved as folders of the hub's form: ``tiny_base_folder("qwen")``.

    Keyword arguments replace entries of the kind's configuration, such as ``tie_word_embeddings=False``. The same
    arguments give the same folder, so treat it as read-only and copy it before planting a fault.
    """
    made: dict[str, Path] = {}

    def folder(kind: str = "llama", **changes: Any) -> Path:
        key = json.dumps([kind, changes], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"base-{kind}")
            _save_tiny_base(made[key], KINDS[kind] | changes)
        return made[key]

    return folder


def _save_tiny_base(to: Path, config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(), eos_token="<|end|>", pad_token="<|end|>", model_max_length=512
    )
    end = tokenizer.eos_token_id
    settings = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end, "pad_token_id": end} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def _train_tokenizer() -> Any:
    """A byte-level BPE tokenizer of a few hundred entries: any text can be written with it, as with a real base's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    return tokenizer


@dataclass
class Page:
    """What a site answers at one address.

    ``promised`` is the length that it announces, if not the body's own; ``login`` the user and password that it wants.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    head: bool = True
    head_status: int = 405
    promised: int | None = None
    login: str = ""


@dataclass
class Site:
    """A web site on this machine. ``put`` says what is at a path from now on, ``asked`` what was asked for so far."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, body: bytes = b"", **page: Any) -> str:
        """Serve a Page at ``path``; returns its address."""
        self.pages[path] = Page(body, **page)
        return self.url + path


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site of this test alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(f"{self.command} {self.path}")
            page = made.pages.get(self.path.partition("?")[0], Page(status=404))
            if self.command == "HEAD" and not page.head:
                page = Page(status=page.head_status)
            known = base64.b64encode(page.login.encode()).decode()
            if page.login and self.headers.get("Authorization") != f"Basic {known}":
                page = Page(status=401)
            self.send_response(page.status)
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page.body) if page.promised is None else page.promised))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(page.body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with listening(Handler) as address:
        made = Site(address)
        yield made


Process = subprocess.Popen[bytes]
Running = Callable[..., AbstractContextManager[Process]]


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port that nothing listens on."""

    def found() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return found


@pytest.fixture(scope="session")
def running() -> Running:
    """Run ``python ARGUMENTS`` in a session of its own, which is killed with all that it started."""

    @contextmanager
    def started(
        *arguments: str, log: Path, environment: Mapping[str, str], folder: Path | None = None
    ) -> Iterator[Process]:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                stdout=output,
                stderr=output,
                env=os.environ | environment,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return started


@pytest.fixture
def server(tmp_path: Path, running: Running) -> Running:
    """The same, yours once ``url`` answers."""

    @contextmanager
    def started(*arguments: str, url: str, environment: Mapping[str, str]) -> Iterator[Process]:
        log = tmp_path / "server.log"
        with running(*arguments, log=log, environment=environment) as process:
            _wait_for(url, process, log)
            yield process

    return started


@pytest.fixture
def mlflow_server(tmp_path: Path, server: Running, free_port: Callable[[], int]) -> Iterator[tuple[str, Process]]:
    """MLflow's own tracking server with its artifacts behind it."""
    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "workers": 1}
    options |= {"backend-store-uri": f"sqlite:///{tmp_path}/server.db", "artifacts-destination": tmp_path / "kept"}
    command = ("-m", "mlflow", "server", *(f"--{key}={value}" for key, value in options.items()))
    # Its job runner triples the time to start and has nothing to do here.
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with server(*command, url=f"http://127.0.0.1:{port}/health", environment=quick) as process:
        yield f"http://127.0.0.1:{port}", process


def _wait_for(url: str, process: Process, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def _object_store() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(_object_store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty S3 bucket ``reviews`` (boto3's own record) at the store that AWS_ENDPOINT_URL names in this test."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", _object_store)
    made = boto3.resource("s3").create_bucket(Bucket="reviews")
    made.objects.all().delete()
    return made
