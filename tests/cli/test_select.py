"""score and select: a model or features of one's own in, a ranked list out."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sal_fast import ops, plugins, query
from sal_fast.cli import arrays, main, score
from sal_fast.models import build, weights


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", draws.normal(size=(60, 8)).astype(np.float32))
    np.save(tmp_path / "logits.npy", draws.normal(size=(60, 4)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"pool/{row:03d}, é\n" for row in range(60)), encoding="utf-8")
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def select(pool: Path, *words: object) -> list[dict[str, str]]:
    assert main(["select", "--out", str(pool / "q.csv"), *map(str, words)]) == 0
    return rows_of(pool / "q.csv")


@pytest.mark.parametrize("criterion", plugins.names("criterion"))
def test_a_query_from_files(pool: Path, criterion: str) -> None:
    files = ("--features", pool / "features.npy", "--logits", pool / "logits.npy", "--ids", pool / "ids.txt")
    got = select(pool, *files, "--criterion", criterion, "--k", 7, "--seed", 3)
    assert list(got[0]) == ["id", "score", "rank"]
    ids = [f"pool/{row:03d}, é" for row in range(60)]
    logits, features = (torch.from_numpy(np.load(pool / f"{name}.npy")) for name in ("logits", "features"))
    nothing = query.Labelled(features=torch.empty(0, 8))
    given = query.Pool(ids, logits=logits, features=features, labelled=nothing)
    expected = query.select(criterion, given, 7, seed=3)
    assert [row["id"] for row in got] == [ids[at] for at in expected.positions.tolist()]
    assert [float(row["score"]) for row in got] == expected.scores.tolist()
    assert [row["rank"] for row in got] == [str(rank) for rank in range(7)]


@pytest.mark.parametrize("criterion", plugins.names("criterion"))
def test_the_order_of_the_rows_does_not_matter(pool: Path, criterion: str) -> None:
    """Nor whether labelled rows are left out here or by whoever wrote the files; ties, by row number too."""
    np.save(pool / "logits.npy", 1000 * np.eye(3, dtype=np.float32).repeat(20, axis=0))
    names = ("features.npy", "logits.npy", "ids.txt")
    words = ("--criterion", criterion, "--k", 20, "--seed", 5)
    files = [word for name in names for word in (f"--{name.split('.')[0]}", pool / name)]
    known = [4, 30, 59]
    (pool / "known.txt").write_text("".join(f"pool/{row:03d}, é\n" for row in known), encoding="utf-8")
    ordered = select(pool, *files, *words, "--labelled", pool / "known.txt")
    assert len({int(row["id"][5:8]) // 20 for row in ordered}) == 3
    numbered = select(pool, *files[:4], *words)
    assert len({int(row["id"]) // 20 for row in numbered}) == 3

    at = np.random.default_rng(1).permutation(np.delete(np.arange(60), known))
    features = np.load(pool / "features.npy")
    np.save(pool / "labelled.npy", features[known])
    np.save(pool / "features.npy", features[at])
    np.save(pool / "logits.npy", np.load(pool / "logits.npy")[at])
    (pool / "ids.txt").write_text("".join(f"pool/{row:03d}, é\n" for row in at), encoding="utf-8")
    assert select(pool, *files, *words, "--labelled", pool / "labelled.npy") == ordered


def test_a_criterion_of_ones_own(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pool / "mine.py").write_text(
        "def last(pool, k, seed):\n"
        "    return sorted(range(len(pool)), key=pool.ids.__getitem__)[-k:]\n"
        "def wrong(pool, k, seed):\n"
        "    return [0] * k\n"
    )
    words = ("--features", pool / "features.npy", "--logits", pool / "logits.npy", "--ids", pool / "ids.txt")
    got = select(pool, *words, "--criterion", f"{pool}/mine.py:last", "--k", 2)
    assert [row["id"][:8] for row in got] == ["pool/058", "pool/059"]
    asked = ["select", *map(str, words), "--k", "2", "--out", str(pool / "none.csv"), "--criterion"]
    assert main([*asked, f"{pool}/mine.py:wrong"]) == 2
    assert "got position 0 more than once" in capsys.readouterr().err
    assert main([*asked, f"{pool}/mine.py:absent"]) == 2
    assert "has no 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize(("criterion", "op"), [("badge", "badge"), ("core-set", "kcenter")])
def test_the_device_is_passed_on(
    pool: Path, device: torch.device, criterion: str, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    run = getattr(ops, op)
    monkeypatch.setattr(ops, op, lambda *x, device, **more: asked.append(device) or run(*x, **more))
    files = ("--features", pool / "features.npy", "--logits", pool / "logits.npy", "--k", 5)
    select(pool, *files, "--criterion", criterion, "--device", device)
    select(pool, *files, "--criterion", criterion)  # a GPU if there is one
    assert asked == [device, torch.device("cuda" if torch.cuda.is_available() else "cpu")]


def test_labelled_rows_by_number_by_id_or_by_their_features(pool: Path) -> None:
    x = torch.from_numpy(np.load(pool / "features.npy"))
    known = [4, 30, 59]
    np.save(pool / "rows.npy", np.array(known))
    (pool / "rows.txt").write_text("4\n30\n59\n")
    (pool / "known.txt").write_text("".join(f"pool/{row:03d}, é\n" for row in known), encoding="utf-8")
    base = ("--features", pool / "features.npy", "--criterion", "core-set", "--k", 100)
    by_number = select(pool, *base, "--labelled", pool / "rows.npy")
    assert sorted(int(row["id"]) for row in by_number) == [row for row in range(60) if row not in known]
    assert by_number == select(pool, *base, "--labelled", pool / "rows.txt")
    by_id = select(pool, *base, "--labelled", pool / "known.txt", "--ids", pool / "ids.txt")
    assert [row["id"][5:8].lstrip("0") or "0" for row in by_id] == [row["id"] for row in by_number]
    save_file({"features": x[:50].contiguous()}, pool / "f.safetensors")
    save_file({"of the labelled": x[50:].contiguous()}, pool / "known.safetensors")
    apart = select(
        pool, "--features", pool / "f.safetensors", "--labelled", pool / "known.safetensors", *base[2:]
    )
    assert [int(row["id"]) for row in apart] == ops.kcenter(x[:50], 100, centers=x[50:]).tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--criterion", "badge", "--features", "features.npy"], "needs --logits FILE"),
        (["--criterion", "badges"], "unknown criterion 'badges'"),
        (["--criterion", "random"], "nothing to select from"),
        (["--criterion", "margin", "--logits", "absent.npy"], "file not found"),
        (["--criterion", "margin", "--logits", "ids.txt"], "expected a .npy or .safetensors file"),
        (["--criterion", "margin", "--logits", "pickled.npy"], "cannot be read"),
        (["--criterion", "margin", "--logits", "whole.npy"], "expected a matrix of floating numbers"),
        (["--criterion", "margin", "--logits", "nan.npy"], "logits contain NaN"),
        (["--criterion", "margin", "--logits", "logits.npy", "--ids", "short.txt"], "--logits 60, --ids 1"),
        (
            ["--criterion", "margin", "--logits", "logits.npy", "--labelled", "short.txt"],
            "row 60; expected 0",
        ),
        (["--criterion", "margin", "--logits", "logits.npy", "--k", "0"], "expected at least 1"),
        (["--criterion", "margin", "--logits", "logits.npy", "--device", "tpu"], "--device tpu: "),
    ],
)
def test_bad_input(
    pool: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pool)
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("whole.npy", np.zeros((60, 3), dtype=np.int64))
    np.save("nan.npy", np.full((60, 3), np.nan))
    Path("short.txt").write_text("60\n")
    extra = [] if "--k" in words else ["--k", "3"]
    assert main(["select", *words, *extra, "--out", "q.csv"]) == 2
    assert said in capsys.readouterr().err
    assert not Path("q.csv").exists()


def scored(shared_folder: Path, tmp_path: Path, out: str, *more: str) -> list[str]:
    model = build("resnet18", 5, seed=1)
    (tmp_path / "model.safetensors").write_bytes(weights.to_bytes(model.net))
    words = ["score", "--data", str(shared_folder), "--arch", "resnet18", "--image-size", "32"]
    return [*words, "--weights", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / out), *more]


def test_score_then_select(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one go, and killed after the first block and continued: the same files."""
    assert main(scored(shared_folder, tmp_path, "whole")) == 0
    ids = (tmp_path / "whole/ids.txt").read_text().splitlines()
    assert ids[0] == "blue/000"
    assert len(ids) == 30
    assert np.load(tmp_path / "whole/logits.npy").shape == (30, 5)
    monkeypatch.setattr(score, "BLOCK", 12)
    real, calls = score.score, []

    def killed(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(score, "score", killed)
    assert main(scored(shared_folder, tmp_path, "parts")) == 130
    assert not (tmp_path / "parts/logits.npy").exists()
    assert main(scored(shared_folder, tmp_path, "parts", "--output-stride", "16")) == 2
    assert "scores that differ in 'output_stride'" in capsys.readouterr().err
    assert main(scored(shared_folder, tmp_path, "parts")) == 0
    assert len(calls) == 4  # 12, killed, 12, 6
    for name in ("logits", "features"):
        whole, parts = (np.load(tmp_path / f"{out}/{name}.npy") for out in ("whole", "parts"))
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)
    assert main(scored(shared_folder, tmp_path, "parts")) == 0
    assert "nothing to do; finished:" in capsys.readouterr().out
    folder = tmp_path / "whole"
    files = ("--features", folder / "features.npy", "--logits", folder / "logits.npy")
    got = select(tmp_path, *files, "--ids", folder / "ids.txt", "--criterion", "badge", "--k", 5)
    assert {row["id"] for row in got} <= set(ids)


def test_score_of_a_plain_folder(shared_folder: Path, tmp_path: Path) -> None:
    assert main(scored(shared_folder / "images", tmp_path, "plain")) == 0
    assert (tmp_path / "plain/ids.txt").read_text().splitlines()[-1] == "red/009"


def test_score_bad_input(shared_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = scored(shared_folder, tmp_path, "out")
    for option, value, said in (
        ("--weights", str(tmp_path / "absent.pth"), "weights file not found"),
        ("--weights", "DEFAULT", "expected a .safetensors, .pth, .pt, .ckpt or .bin file"),
        ("--arch", "resnet50", "do not fit resnet50"),
        ("--data", str(tmp_path / "absent"), "not found"),
        ("--image-size", "0", "expected at least 1"),
        ("--device", "abacus", "--device abacus"),
    ):
        changed = [*words]
        changed[changed.index(option) + 1 if option in changed else len(changed) :][:1] = []
        if option in changed:
            changed[changed.index(option) + 1] = value
        else:
            changed += [option, value]
        assert main(changed) == 2, option
        assert said in capsys.readouterr().err, option


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_files_are_mapped(tmp_path: Path) -> None:
    values = torch.randn(50_000, 256)
    np.save(tmp_path / "features.npy", values.numpy())
    save_file({"features": values}, tmp_path / "features.safetensors")

    def own() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    for suffix in ("npy", "safetensors"):
        before = own()
        mapped = arrays.matrix("features", tmp_path / f"features.{suffix}")
        assert torch.equal(mapped[::5000], values[::5000])
        assert own() - before < values.nbytes / 2
