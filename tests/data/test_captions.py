"""Captions and rows of users' files: read rightly, or one sentence with the file and the line; never a wrong prompt.

The right values are what the text itself says.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from ccl.cli import main
from ccl.data.datamodule import ShardData
from ccl.data.sources import folder_sources
from ccl.data.write import shards_make
from ccl.files.plaintext import printable, read_text
from ccl.rows import read_rows
from ccl.text import EmbeddedText
from ccl.types import AV
from helpers.tiny_clips import TINY, tiny_folder

FULL = 'A man, about fifty, says "hello, my friend"'
E_COMPOSED, E_PARTS = (unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD"))


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def captions(folder: Path, data: str | bytes, ending: str = "csv", names: tuple[str, ...] = ("a.mp4",)) -> dict:
    """Prompts by id, as a folder's sources have them."""
    folder_of(folder / "clips", *names)
    table = folder / f"c.{ending}"
    table.write_bytes(data.encode() if isinstance(data, str) else data)
    return {s.id: json.loads(s.fingerprint)[1] for s in folder_sources(folder / "clips", table)}


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"file,prompt\na.mp4,{FULL}\n", "line 2: has 5 cells where the head has 2"),
        ("file,prompt\r\n\r\na.mp4,A man, says\r\n", "line 3: has 3 cells"),
        ("file,prompt\na.mp4,A man,\n", "line 2: has 3 cells"),  # the comma may be the caption's
        ("file,prompt,length\na.mp4,A man\n", "line 2: has 2 cells where the head has 3"),
        ("file,text\na.mp4,A man\n", "line 1: the head lacks `prompt`"),
        ("a.mp4,A man\n", "line 1: the head lacks `file`"),
        ("file,prompt,prompt\na.mp4,A man,A dog\n", "line 1: the head has `prompt` twice"),
        ("file;prompt\na.mp4;A man\n", "line 1: its columns are divided by semicolons"),
        ("file\tprompt\na.mp4\tA man\n", "line 1: its columns are divided by tabs"),
        ('file,prompt\na.mp4,"A man\nb.mp4,A dog\n', "line 2: a double quote is opened and never closed"),
        ('file,prompt\na.mp4,"A man\nb.mp4,A dog"\n', "line 2: a double quote is opened .* the row of b.mp4"),
        ('file,prompt\na.mp4,"A man says "hi""\n', "line 2: a closing double quote is followed by text"),
        ('file,prompt\na.mp4,"A\nman"\nc.mp4,A dog\n', "line 4: c.mp4 is not in"),
        ('file,prompt\na.mp4,"A\nman"\n"gone\n.mp4",A dog\n', "line 4: gone"),  # where a row begins, not ends
        ("file,prompt\na.mp4,A man\na.mp4,A dog\n", "line 3: a.mp4 was named before, in line 2"),
        ("file,prompt\n,A man\n", "line 2: names no file"),
        ("file,prompt\na.mp4,A\0man\n", "line 2: holds a NUL"),
        (b"file,prompt\na.mp4,Se\xf1or\n", "line 2: is not UTF-8"),
        ("file,prompt\na.mp4,Se\ufffdor\n", "line 2: holds U\\+FFFD"),
        ("", "holds no rows"),
    ],
)
def test_a_csv_that_cannot_be_meant_is_a_sentence_with_the_line(tmp_path, data, words):
    with pytest.raises(ValueError, match=f"c.csv.*{words}"):
        captions(tmp_path, data, names=("a.mp4", "b.mp4"))


@pytest.mark.parametrize(
    "data",
    [
        f'file,prompt\na.mp4,"{FULL.replace(chr(34), chr(34) * 2)}"\n',
        f'\ufefffile,prompt\r\na.mp4,"{FULL.replace(chr(34), chr(34) * 2)}"\r\n,\r\n\r\n',
        f'file, prompt\r\na.mp4, "{FULL.replace(chr(34), chr(34) * 2)}"\r\n',  # as written by hand
        f'prompt, file,notes\n"{FULL.replace(chr(34), chr(34) * 2)}",a.mp4,\n'.replace(", file", ",file"),
    ],
)
def test_a_csv_that_is_one_gives_the_whole_caption(tmp_path, data):
    assert captions(tmp_path, data) == {"a.mp4": FULL}
    assert captions(tmp_path, data.encode("utf-16")) == {"a.mp4": FULL}  # spreadsheets' "Unicode text"


def test_a_caption_may_run_over_lines(tmp_path):
    found = captions(tmp_path, 'file,prompt\na.mp4,"A man,\nthen b, a dog"\nb.mp4,x\n', names=("a.mp4", "b.mp4"))
    assert found == {"a.mp4": "A man,\nthen b, a dog", "b.mp4": "x"}


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_lines_of_json_end_at_newlines_alone(tmp_path, letter):
    line = json.dumps({"file": "a.mp4", "prompt": f"A man{letter}says"}, ensure_ascii=letter < " ")
    assert captions(tmp_path, f"\n{line}\r\n \n", "jsonl") == {"a.mp4": f"A man{letter}says"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_behind_a_byte_order_mark(tmp_path, encoding):
    line = '{"file":"a.mp4","prompt":"Señor"}\n'
    assert captions(tmp_path, line.encode(encoding), "jsonl") == {"a.mp4": "Señor"}


def test_files_that_were_joined_have_a_mark_in_their_middle(tmp_path):
    lines = ['\ufeff{"file":"a.mp4","prompt":"A man"}\n', '\ufeff{"file":"b.mp4","prompt":"A dog"}\n']
    found = captions(tmp_path, "".join(lines), "jsonl", names=("a.mp4", "b.mp4"))
    assert found == {"a.mp4": "A man", "b.mp4": "A dog"}


BAD_JSON = [
    ('{"file":"a.mp4","prompt":"A man"', "line 2: is not JSON"),
    ('{"file":"a.mp4","prompt":"A man","prompt":"A dog"}', "line 2: the key 'prompt' stands there twice"),
    ('{"file":"a.mp4","prompt":"\\ud800"}', r"line 2: .*prompt'? holds half a character, \\ud800"),
    ('{"file":"a.mp4","prompt":"\\u0000"}', "line 2: .*prompt'? holds a NUL"),
    ('{"file":"a.mp4","prompt":"x","length":NaN}', "line 2: is not JSON: NaN"),
    ("[" * 100_000, "line 2: is not JSON that can be read"),
]


@pytest.mark.parametrize(("line", "words"), BAD_JSON)
def test_a_line_of_json_that_cannot_be_meant_is_named(tmp_path, line, words):
    with pytest.raises(ValueError, match=f"c.jsonl, {words}"):
        captions(tmp_path, f"\n{line}\n", "jsonl")


@pytest.mark.parametrize(
    "line", ['["a.mp4", "A man"]', '{"file":"a.mp4","prompt":7}', '{"file":"a.mp4","prompt":["A"]}', "{}", '"a"', "7"]
)
def test_a_caption_that_is_no_text_is_named(tmp_path, line):
    with pytest.raises(ValueError, match=r"c.jsonl, line 1: it must have `file` and `prompt`"):
        captions(tmp_path, line, "jsonl")


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.mp4", "./a.mp4", "x/../a.mp4", "sub/../a.mp4", "sub//../a.mp4", "@/a.mp4", "@/./a.mp4"]
)
def test_a_file_is_found_by_any_of_its_names(tmp_path, name):
    found = captions(
        tmp_path, f"file,prompt\n{name.replace('@', str(tmp_path / 'clips'))},A man\n", names=("a.mp4", "sub/b.mp4")
    )
    assert found["a.mp4"] == "A man"


@pytest.mark.parametrize(("there", "named"), [(E_COMPOSED, E_PARTS), (E_PARTS, E_COMPOSED)])
def test_letters_may_be_composed_or_not(tmp_path, there, named):
    assert captions(tmp_path, f"file,prompt\n{named},A man\n", names=(there,)) == {there: "A man"}
    with pytest.raises(ValueError, match=r"line 3: .* named before, in line 2"):
        captions(tmp_path, f"file,prompt\n{named},A man\n{there},A dog\n", names=(there,))


def test_of_two_files_that_differ_in_form_each_has_its_own_caption(tmp_path):
    both = E_COMPOSED, E_PARTS
    assert captions(tmp_path, f"file,prompt\n{both[0]},A man\n{both[1]},A dog\n", names=both) == {
        E_COMPOSED: "A man",
        E_PARTS: "A dog",
    }


def test_links_lead_to_what_they_name(tmp_path):
    clips = folder_of(tmp_path / "clips", "sub/a.mp4")
    folder_of(tmp_path / "elsewhere", "b.mp4")
    (clips / "short").symlink_to(clips / "sub")
    (clips / "b.mp4").symlink_to(tmp_path / "elsewhere" / "b.mp4")
    (tmp_path / "here").symlink_to(clips)
    rows = f"file,prompt\nshort/a.mp4,A man\n{tmp_path}/here/b.mp4,A dog\n"
    assert captions(tmp_path, rows, names=()) == {"sub/a.mp4": "A man", "b.mp4": "A dog"}
    (clips / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"line 2: out/b.mp4 is not in .*, but outside of it"):
        captions(tmp_path, "file,prompt\nout/b.mp4,A dog\n", names=())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../c.csv", "but outside of it"),
        ("/etc/passwd", "but outside of it"),
        ("gone.mp4", "is not in"),
        ("A.MP4", "did you mean 'a.mp4'"),
        ("a.mp4 ", "did you mean 'a.mp4'"),
        ("sub\\b.mp4", "did you mean 'sub/b.mp4'"),
        ("notes.txt", "is no video and no sound"),
        ("..", "is not in"),
        (".", "is not in"),
        ("x" * 5000 + ".mp4", "is not in"),
    ],
)
def test_a_name_that_is_no_clip_of_the_folder_is_refused(tmp_path, name, words):
    with pytest.raises(ValueError, match=f"line 2: .*{words}"):
        captions(tmp_path, f"file,prompt\n{name},A man\n", names=("a.mp4", "sub/b.mp4", "notes.txt"))


# A text beside each clip ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_beside_a_clip_is_read_behind_its_mark(tmp_path, encoding):
    folder_of(tmp_path, "a.mp4")
    (tmp_path / "a.txt").write_bytes("A man\r\nsays “Señor”\n".encode(encoding))
    assert [json.loads(s.fingerprint)[1] for s in folder_sources(tmp_path)] == ["A man says “Señor”"]


@pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "gb18030", "utf-16-le", "utf-16-be", "koi8-r"])
def test_a_text_in_another_encoding_is_a_reason_that_names_it(tmp_path, encoding):
    folder_of(tmp_path, "a.mp4")
    text = {"cp1252": "one\nSeñor", "koi8-r": "one\nЖИЗНЬ"}.get(encoding, "one\n男の人")  # noqa: RUF001
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"a\.txt, line 2: is not UTF-8"):
        folder_sources(tmp_path)


def test_the_text_beside_a_clip_may_be_named_in_another_unicode_form(tmp_path):
    folder_of(tmp_path, E_PARTS, "a.b.mp4")
    (tmp_path / E_COMPOSED).with_suffix(".txt").write_text("A man")
    (tmp_path / "a.b.TXT").write_text("A dog")
    assert sorted(json.loads(s.fingerprint)[1] for s in folder_sources(tmp_path)) == ["A dog", "A man"]


# No caption -----------------------------------------------------------------------------------------------------------


def test_a_folder_without_any_caption_is_told_before_the_work(tmp_path):
    folder_of(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"none of 2 clips in .* has a caption: no NAME.txt"):
        folder_sources(tmp_path)
    assert [json.loads(s.fingerprint)[1] for s in folder_sources(tmp_path, need_captions=False)] == ["", ""]
    (tmp_path / "c.csv").write_text('file,prompt\na.mp4," "\n')
    with pytest.raises(ValueError, match=r"none of 2 clips in .* has a caption: .*c.csv"):
        folder_sources(tmp_path, tmp_path / "c.csv")


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac-roman"])
def test_a_test_set_in_another_encoding_is_refused_with_the_line(tmp_path, encoding):
    """Never U+FFFD in a reference, which would be words that nobody can say."""
    rows = '{"prompt":"one"}\n{"prompt":"x","speech":"Señor Núñez ordered café"}\n'
    (tmp_path / "r.jsonl").write_bytes(rows.encode(encoding))
    with pytest.raises(ValueError, match=r"r\.jsonl, line 2: is not UTF-8"):
        read_rows(tmp_path / "r.jsonl")


@pytest.mark.parametrize(("line", "words"), BAD_JSON)
def test_rows_are_read_as_captions_are(tmp_path, line, words):
    (tmp_path / "r.jsonl").write_text(f"\n{line.replace('file', 'id')}\n")
    with pytest.raises(ValueError, match=f"r.jsonl, {words}"):
        read_rows(tmp_path / "r.jsonl")


@pytest.mark.parametrize("prompt", [7, [], {}, None, True, ["a man"]])
def test_a_prompt_that_is_no_text_is_refused_with_its_line(tmp_path, prompt):
    (tmp_path / "r.jsonl").write_text('{"prompt": "x"}\n' + json.dumps({"prompt": prompt}))
    with pytest.raises(ValueError, match=r"r\.jsonl, line 2: 'prompt' is .*; it must be text"):
        read_rows(tmp_path / "r.jsonl")


def test_two_forms_of_one_id_are_one(tmp_path):
    rows = [json.dumps({"id": id, "prompt": "x"}) for id in (E_COMPOSED, E_PARTS)]
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"line 2: the id .* is that of line 1 already"):
        read_rows(tmp_path / "r.jsonl")


# The terminal ---------------------------------------------------------------------------------------------------------


def test_what_could_move_or_hide_a_line_is_shown_as_it_is_written():
    assert printable("a\x1b[2Jb\x07\x9b\u202ec\ud800") == r"a\x1b[2Jb\x07\x9b\u202ec\ud800"
    assert printable("Señor 男\tx\n") == "Señor 男\tx\n"


@pytest.mark.parametrize(
    ("data", "words"), [(b"\xff\xfe\x00", "is not UTF-8"), ("A man".encode("utf-16-le"), "holds a NUL")]
)
def test_a_text_that_cannot_be_read_names_its_file(tmp_path, data, words):
    """UTF-16 that ends within a letter, and such that lacks its mark."""
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=f"x, line 1: {words}"):
        read_text(tmp_path / "x")


def test_an_empty_prompt_is_refused_on_the_command_line_as_in_a_file(tmp_path, capsys):
    for prompt, words in (
        ("", "--prompt: nothing is given"),
        (" \n", "has no prompt"),
        ("a \udce9", r"holds half a character, \udce9"),
    ):
        assert main(["generate", "--prompt", prompt, "-o", str(tmp_path / "a.mp4")]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "r.jsonl").write_text('{"prompt": " "}\n')
    with pytest.raises(ValueError, match=r"line 1: has no prompt"):
        read_rows(tmp_path / "r.jsonl")


def test_an_error_moves_no_terminal(tmp_path, capsys):
    assert main(["shards", "make", str(tmp_path / "\x1b[2J\u202e"), "-o", str(tmp_path / "o")]) == 1
    assert r"\x1b[2J\u202e is not a folder" in capsys.readouterr().err


def test_what_is_uncaptioned_is_counted_when_it_is_written_and_when_it_is_learnt_from(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "videos", 3)
    (folder / "clip1.txt").write_text(" ")
    report = shards_make(folder, tmp_path / "a", grid=TINY)
    assert report.skipped == [("clip1.mp4", "no caption in clip1.txt")] and "no caption: 1" in str(report)
    with pytest.raises(ValueError, match=r"clip clip1.mp4 cannot be used: no caption in clip1.txt"):
        shards_make(folder, tmp_path / "b", grid=TINY, strict=True)
    for _ in range(2):  # also where they are there already
        report = shards_make(folder, tmp_path / "c", grid=TINY, empty_prompts=True, strict=True)
        assert report.written == 3 and "without a caption, and with an empty prompt: 1" in str(report)
    said = {}
    for name in "ac":
        data = ShardData(str(tmp_path / name), TINY)
        capsys.readouterr()
        data.serve(AV(True, True), EmbeddedText())
        said[name] = capsys.readouterr().out
    assert said["a"] == ""
    assert said["c"].startswith(f"{tmp_path / 'c'}: 1 of 3 clips without a caption")
