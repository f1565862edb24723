"""The autoencoder family: what each kind promises, its training, and its views."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from latent_tools import small_digits, trained, write_digits
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from restore import weights
from restore.cli.app import run
from restore.errors import UsageError
from restore.images import read_image
from restore.latent.data import read_folder
from restore.latent.kinds.contractive import estimated_norm, exact_norm
from restore.latent.kinds.denoising import damaged
from restore.latent.kinds.variational import divergence, drawn, importance_weighted, log_normal
from restore.latent.model import load_latent
from restore.latent.networks import LatentAutoencoder, LatentConfig
from restore.latent.objective import config_for
from restore.latent.options import KINDS, ModelOptions, TrainingOptions
from restore.latent.training import check_outputs
from restore.models import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"), 120)


@pytest.fixture(scope="module")
def model(tmp_path_factory, folder):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    command = ["latent", "train", folder, "--code", 3, "--widths", 32, "--steps", 60, "-o", path, "--snapshots", 3]
    assert run([*map(str, command), "-q", "--device", "cpu"]) == 0
    return path


def test_pca_is_principal_component_analysis(tmp_path):
    """The reconstruction error within 1 % of scikit-learn's, and the same subspace, by its principal angles."""
    pictures = small_digits()
    flat = pictures.pixels.reshape(len(pictures), -1) / 255
    pca = PCA(4).fit(flat)  # the fifth component is clearly weaker than the fourth
    theirs = ((flat - pca.inverse_transform(pca.transform(flat))) ** 2).mean()
    latent = trained(pictures, tmp_path / "pca.safetensors", 800, kind="pca", code=4, lr=3e-2)
    assert latent.errors(pictures.pixels).mean() == pytest.approx(theirs, rel=0.01)
    assert latent.errors(pictures.pixels).mean() >= theirs * 0.999
    decoder = latent.network.decoder[0].weight.detach().numpy()
    assert np.degrees(subspace_angles(decoder, pca.components_.T)).max() < 5


def test_a_nonlinear_code_holds_more_than_principal_components(tmp_path):
    pictures = small_digits()
    flat = pictures.pixels.reshape(len(pictures), -1) / 255
    pca = PCA(2).fit(flat)
    theirs = ((flat - pca.inverse_transform(pca.transform(flat))) ** 2).mean()
    latent = trained(pictures, tmp_path / "two.safetensors", 900, code=2, widths=(64, 32))
    assert latent.errors(pictures.pixels).mean() < 0.9 * theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", ["dense", "conv"])
def test_every_kind_learns(kind, net, tmp_path):
    """Better than the mean picture after a hundred steps, and what is read back is what was trained."""
    if kind == "pca" and net == "conv":
        with pytest.raises(UsageError, match="one linear layer"):
            ModelOptions(kind=kind, net=net)
        return
    pictures = small_digits(400)
    code = 80 if kind == "overcomplete" else 16
    widths = {"dense": (32,), "conv": (8,)}[net]
    more = {} if kind == "pca" else {"net": net, "widths": widths}
    latent = trained(pictures, tmp_path / "a.safetensors", 150, kind=kind, code=code, lr=1e-2, winners=0.3, **more)
    values = pictures.pixels / 255
    assert latent.errors(pictures.pixels).mean() < 0.97 * ((values - values.mean(0)) ** 2).mean()
    assert latent.encode(pictures.pixels).shape == (400, code)
    assert weights.read_header(tmp_path / "a.safetensors").config["kind"] == kind


@pytest.mark.parametrize("size", [5, 8, 13])
def test_convolutions_take_any_size(size):
    network = build("latent-autoencoder", LatentConfig(net="conv", widths=(4, 6), size=size, code=3, channels=3))
    assert network(torch.rand(2, 3, size, size)).shape == (2, 3, size, size)


def test_tied_weights_are_half_of_the_parameters():
    def matrices(tied):
        network = build("latent-autoencoder", config_for(ModelOptions(kind="stacked", tied=tied, code=8), 16, 1))
        return sum(p.numel() for p in network.parameters() if p.ndim == 2), network

    (apart, _), (shared, network) = matrices(False), matrices(True)
    assert 2 * shared == apart
    before = network.decode(torch.ones(1, 8))
    with torch.no_grad():
        network.encoder[0].weight.mul_(2)  # is the decoder's last, transposed
    assert not torch.allclose(before, network.decode(torch.ones(1, 8)))


def test_sparse_codes(tmp_path):
    """The mean activation comes to the target; k-sparse codes have just k units."""
    pictures = small_digits(400)
    sparse = trained(pictures, tmp_path / "s.safetensors", 400, kind="sparse", code=32, target=0.1, weight=0.5)
    assert sparse.encode(pictures.pixels).mean() == pytest.approx(0.1, abs=0.02)
    free = trained(pictures, tmp_path / "f.safetensors", 400, kind="sparse", code=32, weight=0.0)
    assert free.encode(pictures.pixels).mean() > 0.2
    kept = trained(pictures, tmp_path / "k.safetensors", 20, kind="k-sparse", code=32, active=5)
    assert ((kept.encode(pictures.pixels) != 0).sum(1) == 5).all()


def test_contraction_exact_and_estimated():
    """The closed form is autograd's Jacobian, and Hutchinson's estimate comes to it."""
    torch.manual_seed(0)
    network = LatentAutoencoder(LatentConfig(size=6, code=5, widths=(), sigmoid_code=True))
    pictures = torch.rand(4, 1, 6, 6, requires_grad=True)
    code = network.encoded(pictures)
    exact = exact_norm(network, code)
    jacobian = torch.autograd.functional.jacobian(network.encoded, pictures)
    direct = torch.stack([jacobian[n, :, n].square().sum() for n in range(4)])
    torch.testing.assert_close(exact, direct)
    draw = torch.Generator().manual_seed(0)
    estimate = torch.stack([estimated_norm(pictures, code, draw) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(exact, estimate, rtol=0.06, atol=0)
    estimate.mean().backward()
    assert network.encoder[0].weight.grad is not None


def test_contractive_codes_move_less(tmp_path):
    pictures = small_digits(400)

    def slope(weight):
        name = tmp_path / f"{weight}.safetensors"
        latent = trained(pictures, name, 300, kind="contractive", code=8, weight=weight)
        shown = pictures.planes.requires_grad_()
        return float(estimated_norm(shown, latent.network.encoded(shown), torch.Generator().manual_seed(0)).mean())

    assert slope(0.05) < 0.5 * slope(0.0)


def test_divergence_in_closed_form():
    """Beside a Monte Carlo estimate of E log q(z) - log p(z)."""
    draw = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn((1, 4), generator=draw), torch.randn((1, 4), generator=draw)
    many = mean.expand(200_000, 4), log_variance.expand(200_000, 4)
    codes = drawn(*many, draw)
    estimate = (log_normal(codes, *many) - log_normal(codes, 0.0, 0.0)).mean()
    assert float(divergence(mean, log_variance)) == pytest.approx(float(estimate), rel=0.02)


def test_importance_weighting_tightens_the_bound(folder, tmp_path, capsys):
    """The more codes, the larger the estimate, up to the likelihood, which `reconstruct` prints."""
    pictures = small_digits(400)
    latent = trained(pictures, tmp_path / "v.safetensors", 200, kind="variational", code=4, loss="bce")
    bounds = [
        float(importance_weighted(latent.network, pictures.planes, n, torch.Generator().manual_seed(0)).mean())
        for n in (1, 5, 50)
    ]
    assert bounds[0] < bounds[1] < bounds[2]
    command = ["latent", "reconstruct", folder, "-m", tmp_path / "v.safetensors", "-o", tmp_path / "v.png"]
    assert run([*map(str, command), "--device", "cpu"]) == 0
    printed = float(re.search(r"log-likelihood (-[\d.]+) nats", capsys.readouterr().out)[1])
    assert printed == pytest.approx(latent.log_likelihood(pictures.pixels[:120], 20).mean(), abs=0.3)


@pytest.mark.parametrize("damage", ["noise", "dropout", "bars"])
def test_damage(damage):
    """Each picture is damaged in its own way, as much as was asked for, and the same seed does the same."""
    clean = torch.full((64, 1, 20, 20), 0.5)
    made = damaged(clean, damage, 0.2, torch.Generator().manual_seed(3))
    assert torch.equal(made, damaged(clean, damage, 0.2, torch.Generator().manual_seed(3)))
    assert len(torch.unique(made, dim=0)) > 16
    if damage == "noise":
        assert float((made - clean).std()) == pytest.approx(0.2, rel=0.03)
    else:
        assert float((made != clean).float().mean()) == pytest.approx(0.2, rel=0.05)


def test_layers_one_at_a_time(tmp_path):
    """Other weights than all layers at once, good ones, and only where there are layers."""
    pictures = small_digits(200)
    more = {"kind": "stacked", "code": 4, "widths": (24, 12), "layerwise": True}
    whole = trained(pictures, tmp_path / "whole.safetensors", 400, **more)
    plain = trained(pictures, tmp_path / "plain.safetensors", 400, **more | {"layerwise": False})
    assert not torch.equal(whole.network.encoder[0].weight, plain.network.encoder[0].weight)
    values = pictures.pixels / 255
    assert whole.errors(pictures.pixels).mean() < 0.7 * ((values - values.mean(0)) ** 2).mean()
    with pytest.raises(UsageError, match="--layerwise"):
        trained(pictures, tmp_path / "x.safetensors", 10, kind="sparse", layerwise=True)


def test_resume_gives_the_same_weights(tmp_path):
    pictures = small_digits(200)
    more = {"kind": "variational", "code": 4, "augment": 0.05}
    whole = trained(pictures, tmp_path / "whole.safetensors", 60, **more)
    with pytest.raises(UsageError, match="no such weights file"):  # paused: nothing is written yet
        trained(pictures, tmp_path / "part.safetensors", 60, stop_after=1e-9, **more)
    with pytest.raises(UsageError, match="--code was 4"):
        trained(pictures, tmp_path / "part.safetensors", 60, resume=True, **more | {"code": 5})
    part = trained(pictures, tmp_path / "part.safetensors", 60, resume=True, **more)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, part.network.state_dict()[name]), name


def test_pictures_are_read_as_asked(folder, tmp_path):
    pictures = read_folder(folder, 64, None, shrink=True)
    assert pictures.pixels.shape == (120, 8, 8, 1)
    assert pictures.labels == [path.parent.name for path in pictures.paths]
    shutil.copytree(folder / "0", tmp_path / "0")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    said = []
    assert read_folder(tmp_path, 10, 3, said.append).pixels.shape[1:] == (10, 10, 3)
    assert len(said) == 1 and "bad.png" in said[0]


def test_reconstruct_and_map(model, folder, tmp_path, capsys):
    common = ["-m", str(model), "--device", "cpu"]
    assert run(["latent", "reconstruct", str(folder), *common, "-n", "5", "-o", str(tmp_path / "r.png")]) == 0
    assert read_image(tmp_path / "r.png").pixels.shape == (3 * 60, 5 * 60, 1)
    error = float(re.search(r"error ([\d.]+)", capsys.readouterr().out)[1])
    latent = load_latent(model, "cpu")
    assert error == pytest.approx(float(latent.errors(latent.read(folder).pixels).mean()), abs=1e-5)
    for name, more in {
        "map.png": [],
        "turn.html": ["--dimensions", "3"],
        "strip.png": ["--epochs", str(model.with_suffix(".snapshots")), "--method", "pca"],
        "film.gif": ["--epochs", str(model.with_suffix(".snapshots"))],
    }.items():
        assert run(["latent", "map", str(folder), *common, "-o", str(tmp_path / name), *more]) == 0
        assert (tmp_path / name).stat().st_size > 5000
    page = (tmp_path / "turn.html").read_text()
    points = json.loads(re.search(r"const data = (\{.*\});", page)[1].replace("<\\/", "</"))["points"]
    codes = latent.encode(latent.read(folder).pixels)
    apart = lambda values: np.linalg.norm(values[:, None] - values[None], axis=2).ravel()  # noqa: E731
    assert np.corrcoef(apart(np.array(points)), apart(codes))[0, 1] > 0.999
    assert not re.search(r"https?:|url\(|@import|fetch\(", page)


def test_snapshots_of_another_run_do_not_stay(folder, tmp_path, capsys):
    """Else a map over the epochs shows two runs; they go only where that was asked for."""
    command = ["latent", "train", folder, "--widths", 8, "-o", tmp_path / "a.safetensors", "-q", "--device", "cpu"]
    assert run([*map(str, command), "--steps", "40", "--snapshots", "3", "--code", "2"]) == 0
    (tmp_path / "a.safetensors").unlink()
    shutil.rmtree(tmp_path / "a.checkpoint")
    before = sorted((tmp_path / "a.snapshots").iterdir())
    again = [*map(str, command), "--steps", "20", "--snapshots", "2", "--code", "3"]
    assert run(again) == 2
    assert "holds snapshots" in capsys.readouterr().err.splitlines()[-1]
    assert sorted((tmp_path / "a.snapshots").iterdir()) == before
    assert run([*again, "--overwrite"]) == 0
    assert [path.stem for path in sorted((tmp_path / "a.snapshots").iterdir())] == ["step-000010", "step-000020"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "nowhere"], 2, "nowhere: no such file or folder"),
        (["train", "EMPTY"], 2, "no pictures in this folder"),
        (["train", "FOLDER", "--kind", "magic"], 2, "kind must be one of"),
        (["train", "FOLDER", "--net", "conv", "--tied"], 2, "--tied"),
        (["train", "FOLDER", "--kind", "overcomplete", "--code", "9"], 2, "--code must be above 64"),
        (["train", "FOLDER", "--target", "2"], 2, "--target must be between 0 and 1"),
        (["train", "FOLDER", "-o", "MODEL"], 2, "--overwrite"),
        (["map", "FOLDER", "-m", "nowhere.safetensors"], 2, "no such weights file"),
        (["map", "FOLDER", "-m", "MODEL", "-o", "x.jpg"], 2, "end it in"),
        (["map", "FOLDER", "-m", "MODEL", "--method", "code"], 2, "the code has 3 numbers"),
        (["reconstruct", "BROKEN", "-m", "MODEL"], 1, "none of the pictures can be read"),
    ],
)
def test_bad_input_is_one_line(words, code, said, model, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    places = {"FOLDER": folder, "MODEL": model, "EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken"}
    before = model.read_bytes()
    assert run(["latent", *(str(places.get(word, word)) for word in words)]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("restore: ")]
    assert said in lines[-1]
    assert model.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty"]


def test_overwrite_removes_checkpoints_only(tmp_path):
    """What somebody else has put beside the checkpoints, or beside those of a layer, stops the run before it starts."""
    more = {"kind": "stacked", "code": 4, "widths": (8,), "layerwise": True}
    output, folder = tmp_path / "a.safetensors", tmp_path / "a.checkpoint"
    trained(small_digits(60), output, 9, **more)
    with pytest.raises(UsageError, match=r"--augment was 0\.0"):
        trained(small_digits(60), output, 9, resume=True, augment=0.1, **more)
    for place in (folder, folder / "layer-1"):
        (place / "notes.txt").write_text("mine")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match=r"holds notes\.txt"):
            check_outputs(TrainingOptions(output=output, overwrite=True))
        assert sorted(tmp_path.rglob("*")) == before
        (place / "notes.txt").unlink()
    with pytest.raises(UsageError, match="--overwrite"):
        check_outputs(TrainingOptions(output=output))
    before = sorted(tmp_path.rglob("*"))
    check_outputs(TrainingOptions(output=output, overwrite=True))
    assert sorted(tmp_path.rglob("*")) == before, "what else may be wrong is not known yet"
    trained(small_digits(60), output, 3, kind="undercomplete", code=4, overwrite=True)
    assert not list(folder.glob("layer-*"))
