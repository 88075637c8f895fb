import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from marl_pipeline.config import Params, load_params
from marl_pipeline.data.windows import encoder_refits
from marl_pipeline.encoders.source import Source
from marl_pipeline.encoders.table import encode
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.signals.labels import CLASSES
from marl_pipeline.stages import pretrain_encoder, sl_signals
from marl_pipeline.store.classifiers import load_classifier
from marl_pipeline.store.dataset import save_dataset
from marl_pipeline.store.encoders import load_encoder
from marl_pipeline.store.models import load_embeddings, load_refits, load_signals
from marl_pipeline.store.paths import DATASET, ENCODER, SIGNALS, SL_BENCHMARKS, SL_CHECKPOINTS
from tests.signals.learnable_market import SPANS, WALK_FORWARD, WINDOW, encoder_params, learnable_market, signal_params

MODELS = ("MLP72", "LSTM62", "GRU93")


@pytest.fixture(scope="module")
def params() -> Params:
    whole = load_params(Path(__file__).parents[2] / "profiles" / "quickstart.yaml")
    return whole.model_copy(
        update={
            "build_features": whole.build_features.model_copy(update={"window": WINDOW}),
            "spans": SPANS,
            "walk_forward": WALK_FORWARD,
            "sl_signals": signal_params(models=MODELS, epochs=1, max_samples=200),
            "pretrain_encoder": encoder_params(steps=5, refit_steps=2, refit_every=40),
        }
    )


def run_both(root: Path, params: Params) -> Path:
    save_dataset(root / DATASET, learnable_market(300, 4))
    sl_signals.run(StageContext(params, root=root))
    pretrain_encoder.run(StageContext(params, root=root))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    return run_both(tmp_path_factory.mktemp("first"), params)


def hashes(root: Path) -> dict[str, str]:
    """Of everything that DVC caches of the two stages."""
    files = [path for out in (SIGNALS, SL_CHECKPOINTS, ENCODER) for path in sorted((root / out).rglob("*.*"))]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_stages_leave_the_files_they_promise(root: Path) -> None:
    expected = {f"{SIGNALS}/{model}.npy" for model in MODELS} | {f"{SIGNALS}/available.npy", f"{SIGNALS}/signals.json"}
    for model in MODELS:
        names = ("model.safetensors", "refit_0.safetensors", "metadata.json")
        expected |= {f"{SL_CHECKPOINTS}/{model}/{name}" for name in names}
    for version in (0, 1):
        expected |= {f"{ENCODER}/version_{version}.safetensors", f"{ENCODER}/embeddings_{version}.npy"}
    assert set(hashes(root)) == expected | {f"{ENCODER}/metadata.json"}


def test_the_same_inputs_give_the_same_bytes(root: Path, tmp_path: Path, params: Params) -> None:
    assert hashes(run_both(tmp_path, params)) == hashes(root)


def test_signals_come_back_as_their_models_say_them(root: Path) -> None:
    signals = load_signals(root / SIGNALS)
    assert signals.models == MODELS
    assert signals.probabilities.shape == (300, 4, 3, 3)
    assert json.loads((root / SIGNALS / "signals.json").read_text())["classes"] == list(CLASSES)
    features = learnable_market(300, 4).features
    for place, model in enumerate(MODELS):
        module, metadata = load_classifier(root / SL_CHECKPOINTS / model)
        refit = metadata["refits"][-1]
        assert refit["valid_bars"][1] == 300
        bar = refit["valid_bars"][0] + 3
        with torch.no_grad():
            logits = module(torch.from_numpy(features[bar - WINDOW + 1 : bar + 1].transpose(1, 0, 2).copy()))
        said = (logits / refit["temperature"]).softmax(-1).numpy()
        assert np.allclose(said, signals.probabilities[bar, :, place], atol=1e-5)


def test_embeddings_come_back_as_their_encoder_makes_them(root: Path, params: Params) -> None:
    refits = load_refits(root / ENCODER)
    assert refits == encoder_refits(300, SPANS, WALK_FORWARD, params.pretrain_encoder.refit_every)
    source = Source.of(learnable_market(300, 4), WINDOW, params.pretrain_encoder, torch.device("cpu"))
    for refit in refits:
        embeddings = load_embeddings(root / ENCODER, refit.version)
        assert (embeddings.version, embeddings.fitted_until) == (refit.version, refit.fitted_until)
        assert embeddings.values.dtype == np.float32
        encoder = load_encoder(root / ENCODER, refit.version, params.pretrain_encoder)
        assert np.array_equal(
            encode(encoder, source, type(refit.valid_bars)(embeddings.start, refit.valid_bars.stop)), embeddings.values
        )


def test_curves_are_there_for_the_report(root: Path) -> None:
    curves = json.loads((root / ENCODER / "metadata.json").read_text())["curves"]
    assert {"version_0/loss", "version_1/forecast_loss"} <= {curve["name"] for curve in curves}
    assert all(len(curve["x"]) == len(curve["y"]) for curve in curves)


def test_inference_times_lie_beside_the_outputs(root: Path) -> None:
    times = json.loads((root / SL_BENCHMARKS).read_text())["models"]
    assert set(times) == set(MODELS)
    assert all(own["batch"] == 4 for own in times.values())


def test_missing_and_damaged_files_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the stage sl_signals first"):
        load_signals(tmp_path)
    with pytest.raises(UserError, match=r"no encoder version 7 \(found: 0, 1\)"):
        load_embeddings(root / ENCODER, 7)
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        load_refits(tmp_path)


def test_a_killed_stage_leaves_nothing_half_written(tmp_path: Path, params: Params) -> None:
    save_dataset(tmp_path / DATASET, learnable_market(300, 4))

    def stop(label: str, step: int, total: int, metrics: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_encoder.run(StageContext(params, on_step=stop, root=tmp_path))
    assert not (tmp_path / ENCODER).exists()
    assert not list((tmp_path / ENCODER.parent).iterdir())
