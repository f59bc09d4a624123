"""Every dataset can be walked back to the questions and the databases, through the models of earlier rounds too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command import done, excot
from manifests import DATABASES, fingerprint_of, make_manifest

from excot.config import LineageConfig
from excot.hub.lineage import lineage


def tree_of(folder: Path, manifest: dict[str, Any]) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return lineage(LineageConfig(source=str(folder))).splitlines()


def test_a_students_pairs_lead_through_its_training_to_the_teachers_answers_and_the_databases(tmp_path):
    manifest = make_manifest()
    for data in manifest["stages"]["generations_round1"]["trained"]["data"]:
        data.update(revision="v1")
    lines = tree_of(tmp_path / "run", manifest)
    path = ["pairs_round1", "verified_round1", "generations_round1", "pairs", "verified", "generations"]
    depths = [next(line.index(f"{name}  ") for line in lines if f" {name}  " in f" {line}") for name in path]
    assert depths == sorted(depths) and len({*depths}) == len(path)
    for db_id, files in DATABASES.items():
        (found,) = (line for line in lines if f"database {db_id}  " in line)
        assert all(f"{file} {hash[:12]}" in found for file, hash in files.items())
    (model,) = (line for line in lines if "model  " in line)
    assert "meta-llama/Llama-3.1-8B-Instruct, trained by dpo on team/spider-pairs@v1 pairs" in model
    assert fingerprint_of("pairs")[:12] in model


def test_what_an_earlier_version_was_made_of_is_said_to_be_unknown(tmp_path):
    manifest = make_manifest()
    manifest["stages"]["generations_round1"].pop("trained")
    manifest["stages"]["verified"]["fingerprint"] = "f" * 64
    lines = tree_of(tmp_path / "run", manifest)
    assert any(f"verified  {fingerprint_of('verified')[:12]}  an earlier version" in line for line in lines)


def test_a_folder_without_a_manifest_has_none(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no manifest of excot's" in excot("lineage", tmp_path / "empty").err


def test_a_shared_ancestor_is_shown_once(tmp_path):
    from chain import make_run

    out = make_run(tmp_path)
    done("generate", "--backend", "teacher", "--n", 2, "--out", out)
    done("verify", "--processes", 1, "--out", out)
    done("sft", "--out", out)
    done("pairs", "--out", out)
    shown = done("lineage", out)
    assert shown.count("database shop") == 1 and shown.count("see above") == 1
