"""Weights are found in a fixed order, assembled once, and refused when they are not what they should be."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import types
from typing import TYPE_CHECKING

import pytest

from tale_core.errors import (
    CorruptWeightsError,
    LocalModelError,
    MissingExtraError,
    UnknownModelError,
    WeightsNotFoundError,
)
from tale_core.local import CATALOGUE, PATH_VARIABLE, find_weights, locate_weights, verify_weights
from tale_core.local import assembly as assembly_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tale_core.local import EmbeddedModel

    Install = Callable[..., list[Path]]

CONTENT = (b"GGUF first,", b" second,", b" third")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF of my own")
    return path


def test_pieces_are_assembled_in_order_into_the_cache(
    tiny: EmbeddedModel, install: Install, cache: Path
) -> None:
    install(tiny, *CONTENT)
    weights = find_weights("tiny")
    assert weights.path == cache / "tiny.gguf"
    assert weights.path.read_bytes() == b"".join(CONTENT)
    assert weights.model == "tiny"


def test_weights_are_assembled_once(tiny: EmbeddedModel, install: Install) -> None:
    paths = install(tiny, *CONTENT)
    find_weights("tiny")
    for path in paths:
        path.unlink()
    assert find_weights("tiny").origin == "the user's cache"


def test_nothing_but_the_lock_and_the_note_on_the_check_is_left_beside_the_weights(
    tiny: EmbeddedModel, install: Install, cache: Path
) -> None:
    install(tiny, *CONTENT)
    find_weights("tiny")
    assert {path.name for path in cache.iterdir()} <= {"tiny.gguf", "tiny.checked", "tiny.lock"}


def test_a_wrong_digest_is_refused_with_the_way_out(tiny: EmbeddedModel, install: Install, cache: Path) -> None:
    install(tiny, *CONTENT[:2], b" THIRD")
    with pytest.raises(CorruptWeightsError, match=r"sha256 .* instead of .*; reinstall the packages: pip"):
        find_weights("tiny")
    assert not (cache / "tiny.gguf").exists()
    assert not (cache / "tiny.part").exists()


def test_what_an_interrupted_assembly_left_is_overwritten(
    tiny: EmbeddedModel, install: Install, cache: Path
) -> None:
    install(tiny, *CONTENT)
    cache.mkdir(parents=True)
    (cache / "tiny.part").write_bytes(b"half of it, and longer than the whole weights are")
    assert find_weights("tiny").path.read_bytes() == b"".join(CONTENT)


def test_an_assembly_that_is_interrupted_leaves_nothing_behind(
    tiny: EmbeddedModel, install: Install, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tiny, *CONTENT)

    def interrupted(sources: object, target: Path, advance: object) -> str:
        target.write_bytes(b"GGUF half")
        raise KeyboardInterrupt

    monkeypatch.setattr(assembly_module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_weights("tiny")
    assert {path.name for path in cache.iterdir()} <= {"tiny.lock"}


def test_processes_that_assemble_at_once_wait_for_the_first(
    tiny: EmbeddedModel, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tiny, *CONTENT)
    copied = []
    real = assembly_module._copy

    def counted(*arguments: object) -> str:
        copied.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly_module, "_copy", counted)
    threads = [threading.Thread(target=find_weights, args=("tiny",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copied) == 1


def test_a_disk_without_room_is_named_before_anything_is_written(
    tiny: EmbeddedModel, install: Install, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tiny, *CONTENT)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=3))
    with pytest.raises(LocalModelError, match=rf"needs 0 MB in .*make room, or set {PATH_VARIABLE}"):
        find_weights("tiny")
    assert not (cache / "tiny.part").exists()


def test_a_cache_that_cannot_be_written_is_named(tiny: EmbeddedModel, install: Install, cache: Path) -> None:
    install(tiny, *CONTENT)
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(LocalModelError, match="cannot write the weights to"):
        find_weights("tiny")


def test_a_piece_that_lies_in_one_package_is_used_where_it_lies(
    whole: EmbeddedModel, install: Install, cache: Path
) -> None:
    (path,) = install(whole, b"GGUF whole")
    assert find_weights("whole").path == path
    assert not cache.exists()


def test_no_weights_anywhere_lists_every_way(tiny: EmbeddedModel, install: Install, cache: Path) -> None:
    install(tiny, *CONTENT[:1])
    with pytest.raises(WeightsNotFoundError) as error:
        find_weights("tiny")
    message = str(error.value)
    assert "2 of 3 packages with the weights are not installed (tiny_part2==1.0, tiny_part3==1.0)" in message
    for way in (tiny.install, "--model-path", "model_path=", PATH_VARIABLE, str(cache / "tiny.gguf")):
        assert way in message


def test_the_default_model_can_also_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tale_core.local.assembly.piece_paths", lambda model: [None] * len(model.pieces))
    with pytest.raises(WeightsNotFoundError, match=r"HF_HUB_OFFLINE[\s\S]*pip install huggingface_hub"):
        find_weights("qwen2.5-coder-1.5b-instruct-q4_k_m")


class _Hub(types.ModuleType):
    """Stands for the package huggingface_hub."""

    def __init__(self, content: bytes | Exception) -> None:
        super().__init__("huggingface_hub")
        self.content = content

    def hf_hub_download(self, repository: str, name: str, *, local_dir: Path) -> str:
        if isinstance(self.content, Exception):
            raise self.content
        local_dir.mkdir()
        path = local_dir / name
        path.write_bytes(self.content)
        return str(path)


@pytest.fixture
def hub(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | Exception], None]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(CATALOGUE, "tiny", tiny.model_copy(update={"hub": ("some/where", "tiny.gguf")}))
    return lambda content: monkeypatch.setitem(sys.modules, "huggingface_hub", _Hub(content))


def test_the_hub_serves_where_no_package_does(hub: Callable[[bytes], None], cache: Path) -> None:
    hub(b"".join(CONTENT))
    assert find_weights("tiny").path.read_bytes() == b"".join(CONTENT)
    assert {path.name for path in cache.iterdir()} <= {"tiny.gguf", "tiny.checked", "tiny.lock"}


def test_a_wrong_file_from_the_hub_is_refused(hub: Callable[[bytes], None], cache: Path) -> None:
    hub(b"GGUF something else")
    with pytest.raises(CorruptWeightsError, match="instead of"):
        find_weights("tiny")
    assert not (cache / "tiny.gguf").exists()


def test_a_hub_that_cannot_be_reached_is_one_of_the_reasons(hub: Callable[[Exception], None]) -> None:
    hub(ConnectionError("no network"))
    with pytest.raises(WeightsNotFoundError, match=r"did not serve some/where/tiny.gguf \(ConnectionError\)"):
        find_weights("tiny")


def test_a_path_wins_over_everything(
    tiny: EmbeddedModel, install: Install, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tiny, *CONTENT)
    monkeypatch.setenv(PATH_VARIABLE, "/nowhere.gguf")
    weights = find_weights(path=file)
    assert (weights.path, weights.model) == (file, "mine")


def test_a_path_may_be_given_any_name(file: Path) -> None:
    assert find_weights("my-model", path=file).model == "my-model"


def test_a_file_with_the_digest_of_a_catalogue_model_has_its_name(tiny: EmbeddedModel, tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(b"".join(CONTENT))
    assert find_weights(path=path).model == "tiny"


@pytest.mark.parametrize(("name", "called"), [("other", "other"), ("tiny", "tiny-unverified")])
def test_a_file_of_the_same_size_alone_is_not_taken_for_a_catalogue_model(
    tiny: EmbeddedModel, tmp_path: Path, name: str, called: str
) -> None:
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(b"".join(CONTENT)[:-1] + b"D")
    assert find_weights(path=path).model == called


def test_whose_weights_a_named_file_holds_is_read_once_and_no_note_beside_it_is_believed(
    tiny: EmbeddedModel, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "strangers.gguf"
    path.write_bytes(b"".join(CONTENT))
    read: list[Path] = []
    copy = assembly_module._copy
    monkeypatch.setattr(
        assembly_module, "_copy", lambda sources, *rest: read.extend(sources) or copy(sources, *rest)
    )
    assert [find_weights(path=path).model, find_weights(path=path).model] == ["tiny", "tiny"]
    assert read == [path]
    path.write_bytes(b"".join(CONTENT)[:-1] + b"D")
    for note in cache.iterdir():
        path.with_suffix(note.suffix).write_bytes(note.read_bytes())
    assert find_weights(path=path).model == "strangers"


def test_a_link_in_the_place_of_the_assembly_is_not_followed(
    tiny: EmbeddedModel, install: Install, cache: Path, tmp_path: Path
) -> None:
    install(tiny, *CONTENT)
    cache.mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    (cache / "tiny.part").symlink_to(precious)
    assert find_weights("tiny").path.read_bytes() == b"".join(CONTENT)
    assert precious.read_bytes() == b"keep me"


def test_the_environment_names_weights_for_callers_that_name_no_model(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(file))
    assert find_weights().path == file


def test_the_environment_does_not_replace_a_model_asked_for_by_name(
    whole: EmbeddedModel, install: Install, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = install(whole, b"GGUF whole")
    monkeypatch.setenv(PATH_VARIABLE, str(file))
    assert find_weights("whole").path == path


def test_a_path_that_does_not_exist_is_shown() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"'/no/such\.gguf' \(the path given\)"):
        find_weights(path="/no/such.gguf")


def test_a_file_that_is_no_model_is_shown_with_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary")
    with pytest.raises(CorruptWeightsError, match=r"notes\.txt' .* is no GGUF file: it starts with b'Dear'"):
        find_weights(path=path)


def test_a_cached_file_of_the_wrong_size_is_refused(tiny: EmbeddedModel, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(b"GGUF short")
    with pytest.raises(CorruptWeightsError, match=r"has 10 bytes, but .* have 25; delete it and run"):
        find_weights("tiny")


def test_a_name_that_is_not_in_the_catalogue_lists_those_that_are() -> None:
    with pytest.raises(UnknownModelError, match=r"'gpt-5'; there are: qwen2\.5-coder.*smollm2.*--model-path"):
        find_weights("gpt-5")


def test_weights_can_be_located_without_assembling_them(
    tiny: EmbeddedModel, install: Install, cache: Path
) -> None:
    install(tiny, *CONTENT)
    assert locate_weights("tiny") is None
    assert not cache.exists()


DAMAGED = b"".join(CONTENT).replace(b"third", b"THIRD")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose digest was worked out."""
    paths: list[Path] = []
    real = assembly_module.check_file

    def check(path: Path, model: EmbeddedModel, remedy: str) -> None:
        paths.append(path)
        real(path, model, remedy)

    monkeypatch.setattr(assembly_module, "check_file", check)
    return paths


def put(cache: Path, content: bytes, *, changed_at: int = 10**18) -> Path:
    """Put a file in the place of the tiny model's weights."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "tiny.gguf"
    path.write_bytes(content)
    os.utime(path, ns=(changed_at, changed_at))
    return path


def test_what_was_put_into_the_cache_is_checked_once(
    tiny: EmbeddedModel, cache: Path, checked: list[Path]
) -> None:
    path = put(cache, b"".join(CONTENT))
    assert find_weights("tiny") == find_weights("tiny")
    assert checked == [path]


def test_what_was_assembled_is_not_checked_again(
    tiny: EmbeddedModel, install: Install, checked: list[Path]
) -> None:
    install(tiny, *CONTENT)
    assert find_weights("tiny") == find_weights("tiny")
    assert checked == []


def test_damage_that_keeps_the_size_is_found_before_the_first_use(tiny: EmbeddedModel, cache: Path) -> None:
    put(cache, DAMAGED)
    for _ in range(2):
        with pytest.raises(CorruptWeightsError, match=r"instead of .*; delete .* and provide"):
            find_weights("tiny")


def test_a_file_that_has_changed_is_checked_again(tiny: EmbeddedModel, cache: Path) -> None:
    put(cache, b"".join(CONTENT))
    find_weights("tiny")
    put(cache, DAMAGED, changed_at=10**18 + 1)
    with pytest.raises(CorruptWeightsError):
        find_weights("tiny")


def test_a_note_that_cannot_be_kept_costs_a_check_and_nothing_else(
    tiny: EmbeddedModel, cache: Path, checked: list[Path]
) -> None:
    path = put(cache, b"".join(CONTENT))
    (cache / "tiny.checked").mkdir()
    assert find_weights("tiny") == find_weights("tiny")
    assert checked == [path, path]


def test_damage_that_leaves_no_trace_is_found_on_request(tiny: EmbeddedModel, cache: Path) -> None:
    put(cache, b"".join(CONTENT))
    find_weights("tiny")
    put(cache, DAMAGED)
    with pytest.raises(CorruptWeightsError, match=r"delete .* and provide the weights again"):
        verify_weights(find_weights("tiny"))


def test_sound_weights_and_weights_of_ones_own_pass_verification(
    tiny: EmbeddedModel, install: Install, file: Path
) -> None:
    install(tiny, *CONTENT)
    verify_weights(find_weights("tiny"))
    verify_weights(find_weights(path=file))


def test_a_missing_package_of_the_extra_is_named_with_its_command(
    tiny: EmbeddedModel, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tiny, *CONTENT)
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingExtraError, match=r"'filelock' .* pip install 'tale-reasoning\[local\]'"):
        find_weights("tiny")


@pytest.mark.model
def test_the_small_model_in_its_package_is_the_published_one() -> None:
    verify_weights(find_weights("smollm2-135m-instruct-q4_1"))
