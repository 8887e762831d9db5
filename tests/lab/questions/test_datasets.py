"""Reading questions: every form of source, and every way it can be wrong."""

from __future__ import annotations

import sys
import types
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import DataError, MissingExtraError
from tale_lab.questions.datasets import ANSWER_FORMAT, Question, check_disjoint, load_dataset
from tale_lab.questions.graders import get_grader

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.fixture
def five(tmp_path: Path) -> str:
    lines = [f'{{"question": "{n} + 1?", "answer": {n + 1}, "level": {n}}}' for n in range(5)]
    return written(tmp_path / "five.jsonl", "\n".join(lines) + "\n\n")


def test_jsonl_with_numbers_texts_and_more_keys(five: str) -> None:
    dataset = load_dataset(five)
    assert [(one.question, one.answer) for one in dataset.questions] == [
        (f"{n} + 1?", str(n + 1)) for n in range(5)
    ]
    assert dataset.questions[3].meta == {"level": 3}
    assert dataset.source == five


def test_a_slice_counts_from_zero_and_is_recorded(five: str) -> None:
    dataset = load_dataset(f"{five}[1:3]")
    assert [one.question for one in dataset.questions] == ["1 + 1?", "2 + 1?"]
    assert dataset.source.endswith("five.jsonl[1:3]")
    assert len(load_dataset(f"{five}[3:]")) == 2
    assert len(load_dataset(f"{five}[:2]")) == 2
    assert len(load_dataset(five, limit=2)) == 2


def test_the_id_is_made_of_the_content_alone(tmp_path: Path, five: str) -> None:
    copy = written(tmp_path / "copy.csv", "answer,question\n3,2 + 1?\n")
    assert load_dataset(copy).questions[0].id == load_dataset(five).questions[2].id
    assert Question.of("2 + 1?", "4").id != Question.of("2 + 1?", "3").id


def test_the_digest_is_made_of_the_questions_and_not_of_the_name(tmp_path: Path, five: str) -> None:
    slice_ = load_dataset(f"{five}[1:2]")
    copy = load_dataset(written(tmp_path / "one.jsonl", '{"question": "1 + 1?", "answer": "2"}'))
    assert slice_.digest == copy.digest != load_dataset(five).digest


def test_gsm8k_answers_count_from_their_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "gsm.jsonl", '{"question": "q", "answer": "3 + 4 = <<3+4=7>>7\\n#### 7"}')
    assert load_dataset(path).questions[0].answer == "7"


def test_a_byte_order_mark_and_windows_lines_are_no_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "bom.jsonl", b'\xef\xbb\xbf{"question": "q", "answer": 1}\r\n')
    assert len(load_dataset(path)) == 1
    path = written(tmp_path / "bom.csv", b"\xef\xbb\xbfquestion,answer\r\nq,1\r\n")
    assert len(load_dataset(path)) == 1


def test_csv_fields_may_span_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", 'question,answer\n"two\nlines, one comma","7"\n')
    assert load_dataset(path).questions[0].question == "two\nlines, one comma"


def test_an_instruction_is_part_of_the_question(five: str) -> None:
    plain, asked = load_dataset(five), load_dataset(five, instruction=ANSWER_FORMAT)
    assert asked.questions[0].question == f"0 + 1?\n{ANSWER_FORMAT}"
    assert asked.questions[0].id != plain.questions[0].id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", r"data.jsonl line 2: not JSON"),
        ("[1]", r"line 2: must be a JSON object, got list"),
        ('{"question": "q"}', r"line 2: 'answer' must be a text or a number, there is none"),
        ('{"answer": "a"}', r"line 2: 'question' must be a text or a number, there is none"),
        ('{"question": "q", "answer": ""}', r"line 2: 'answer' must be .* got ''"),
        ('{"question": "q", "answer": true}', r"line 2: 'answer' must be .* got True"),
        ('{"question": "q", "answer": "work ####"}', r"line 2: 'answer' is empty after '####'"),
        ('{"question": "q", "answer": "\\ud8', r"line 2: not JSON"),
        ("[" * 100_000, r"line 2: not JSON"),
        ('{"question": "a \\ud800 b", "answer": 1}', r"line 2: holds half of a surrogate pair, '\\ud800'"),
        ('{"question": "q", "answer": 1, "more": ["\\uDFFF"]}', r"line 2: holds half of a surrogate pair"),
        ('{"question": "q", "answer": NaN}', r"line 2: not JSON \(NaN is no number there\)"),
        ('{"question": "q", "answer": 1e999}', r"line 2: 'answer' must be .* got inf"),
        ('{"question": "q", "answer": 1, "grader": "os:system"}', r"line 2: data may not name the grader"),
    ],
)
def test_a_malformed_line_is_named_and_stops_or_is_skipped(tmp_path: Path, line: str, message: str) -> None:
    good = '{"question": "good", "answer": 1}'
    path = written(tmp_path / "data.jsonl", f"{good}\n{line}\n{good.replace('good', 'better')}\n")
    with pytest.raises(DataError, match=message):
        load_dataset(path)
    dataset = load_dataset(path, on_error="skip")
    assert [one.question for one in dataset.questions] == ["good", "better"]
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith("data.jsonl line 2")


@pytest.mark.parametrize("bytes_", [b"\xff\xfe", b"\xed\xa0\x80"])  # the latter is half of a surrogate pair
def test_bytes_that_are_no_utf8_are_a_malformed_line(tmp_path: Path, bytes_: bytes) -> None:
    path = written(tmp_path / "data.jsonl", b'{"question": "' + bytes_ + b'", "answer": 1}\n')
    with pytest.raises(DataError, match="line 1: not JSON"):
        load_dataset(path)


def test_whole_surrogate_pairs_and_long_lines_are_read(tmp_path: Path) -> None:
    smile = chr(0x1F600)
    lines = f'{{"question": "\\ud83d\\ude00", "answer": 1}}\n{{"question": "{"x" * 10**6}", "answer": 2}}'
    questions = load_dataset(written(tmp_path / "data.jsonl", lines)).questions
    assert [len(one.question) for one in questions] == [1, 10**6]
    assert questions[0].question == smile


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_only_line_ends_end_a_line_of_csv(tmp_path: Path, inside: str) -> None:
    text = f"question,answer\r\none{inside}two,7\r\nthree,8\r\n"
    questions = load_dataset(written(tmp_path / "data.csv", text)).questions
    assert [(one.question, one.answer) for one in questions] == [(f"one{inside}two", "7"), ("three", "8")]


def test_a_csv_field_that_is_too_long_says_where_it_fits(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"after line 1: field larger .*; save it as .jsonl, which has no such limit"
    ):
        load_dataset(written(tmp_path / "data.csv", f"question,answer\n{'x' * 200_000},1\n"))


def test_an_empty_grader_of_a_csv_is_none(tmp_path: Path) -> None:
    dataset = load_dataset(written(tmp_path / "data.csv", "question,answer,grader\nq,1,\np,2,exact\n"))
    assert [one.grader for one in dataset.questions] == [None, "exact"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\nq,1,2\n", r"data.csv line 2: more fields than the header"),
        ("question,answer\nq\n", r"data.csv line 2: 'answer' must be"),
        ("text,label\nq,1\n", r"data.csv line 2: 'question' must be"),
        ('question,answer\n"open,1\n', r"data.csv, after line 1: unexpected end"),
        ("question,answer\n", r"data.csv: no questions there"),
    ],
)
def test_a_malformed_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(written(tmp_path / "data.csv", text))


def test_a_csv_that_is_no_utf8_says_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 16\); save the file as UTF-8"):
        load_dataset(written(tmp_path / "data.csv", b"question,answer\n\xff,1\n"))


def test_repeated_questions_are_asked_once(tmp_path: Path) -> None:
    line = '{"question": "q", "answer": 1}\n'
    dataset = load_dataset(written(tmp_path / "data.jsonl", line * 3))
    assert (len(dataset), dataset.merged) == (1, 2)


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    text = '{"question": "q", "answer": 1}\n{"question": "q", "answer": 2}\n'
    with pytest.raises(
        DataError, match=r"line 2: the question 'q' stands there twice, .* '1' and '2'; keep one"
    ):
        load_dataset(written(tmp_path / "data.jsonl", text))
    assert len(load_dataset(written(tmp_path / "data.jsonl", text), on_error="skip").skipped) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jsonl", r"cannot read 'nowhere.jsonl': No such file"),
        ("nothing at all", r"no questions at 'nothing at all': give a .jsonl or .csv file, a reasoning-gym"),
        ("gsm_symbolic", "no questions at"),
        ("no_such_task:5", "reasoning-gym cannot make no_such_task:5"),
        ("gsm_symbolic:5:flavour=sweet", "reasoning-gym cannot make gsm_symbolic:5"),
    ],
)
def test_a_source_that_is_none(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(source)


def test_an_empty_file_or_an_empty_slice_holds_no_questions(tmp_path: Path, five: str) -> None:
    with pytest.raises(DataError, match="no questions there"):
        load_dataset(written(tmp_path / "empty.jsonl", ""))
    with pytest.raises(DataError, match=r"five.jsonl\[10:20\]: no questions there"):
        load_dataset(f"{five}[10:20]")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot read"):
        load_dataset(str(tmp_path / "data.jsonl"))


def test_reasoning_gym_makes_the_same_checkable_questions_each_time() -> None:
    dataset = load_dataset("gsm_symbolic:6:seed=7")
    assert len(dataset) == 6
    assert dataset.digest == load_dataset("gsm_symbolic:6:seed=7").digest
    assert dataset.digest != load_dataset("gsm_symbolic:6:seed=8").digest
    for question in dataset.questions:
        grade = get_grader("auto")(question)
        assert grade(f"So 5 * 3 = 15. Answer: {question.answer}") == "correct"
        assert grade(f"Answer: {float(question.answer) + 1}") == "wrong"
        assert grade("no idea") == "unreadable"


def test_reasoning_gym_tasks_without_numbers_are_graded_by_their_own_scorer() -> None:
    question = load_dataset("letter_counting:3:seed=1").questions[0]
    assert get_grader("gym")(question)(f"Answer: {question.answer}") == "correct"


def test_hugging_face_datasets_are_loaded_by_name_configuration_and_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[object, ...]] = []

    def load(name: str, config: str | None, *, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return [{"question": "q", "answer": "work #### 7"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    for source in ("hf:openai/gsm8k:main:test", "hf:openai/gsm8k:train", "hf:openai/gsm8k"):
        assert load_dataset(source).questions[0].answer == "7"
    assert asked == [
        ("openai/gsm8k", "main", "test"),
        ("openai/gsm8k", None, "train"),
        ("openai/gsm8k", None, "test"),
    ]


def test_a_hub_that_does_not_answer_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    with pytest.raises(DataError, match=r"cannot load hf:a/b \(configuration None, split 'test'\): offline"):
        load_dataset("hf:a/b")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtraError, match=r"tale-reasoning\[eval\]"):
        load_dataset("gsm_symbolic:5")


def test_questions_in_two_slices_are_refused(five: str) -> None:
    check_disjoint(tune=load_dataset(f"{five}[:2]"), test=load_dataset(f"{five}[2:]"))
    with pytest.raises(
        DataError, match=r"1 questions are both in tune .* and in test .*, the first: '1 \+ 1\?'"
    ):
        check_disjoint(tune=load_dataset(f"{five}[:2]"), test=load_dataset(f"{five}[1:]"))


ROWS = st.lists(
    st.sampled_from(
        ['{"question": "1 + 1?", "answer": "2"}', '{"question":', '"answer"', "\\ud800", "\n", ",", '"']
    )
    | st.text(max_size=8),
    max_size=8,
)


@given(ROWS.map("".join) | st.text(), st.sampled_from(["any.jsonl", "any.csv"]))
def test_every_file_holds_questions_or_is_refused_with_words(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    head = b"question,answer\n" if name.endswith("csv") else b""
    path.write_bytes(head + text.encode(errors="surrogatepass"))
    with suppress(DataError):
        for question in load_dataset(str(path)).questions:
            question.question.encode()  # can be sent
