"""A long preparation says how far it is and how long it still takes; a short one says nothing."""

import time

from gaplaw.data import progress
from gaplaw.data.progress import Preparation


def test_lines_tell_the_share_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    with Preparation("learning bpe:9", 200) as shown:
        shown.advance(50)
        shown._began -= 30
        assert shown.line() == "learning bpe:9: 25%, about 90 s left"
        while "25%" not in (told := capsys.readouterr().err):
            time.sleep(0.01)
        shown.what, shown.total = "learning the merges", None
        assert shown.line() == "learning the merges: 30 s so far"
    assert told.startswith("gaplaw: learning bpe:9: 25%, about ") and not shown._thread.is_alive()


def test_a_terminal_gets_one_changing_line(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "CHANGE_SECONDS", 0.01)
    with Preparation("encoding [/x] with bytes", 100) as shown:  # a path may look like rich's markup
        shown.advance(40)
        while "40%" not in screen.getvalue() and shown._thread.is_alive():
            time.sleep(0.01)
    assert "encoding [/x] with bytes: 40%" in screen.getvalue()


def test_what_is_short_says_nothing(capsys):
    with Preparation("reading") as shown:
        shown.advance(1)
    assert capsys.readouterr().err == ""


def test_learning_a_tokenizer_and_encoding_are_shown(tmp_path, monkeypatch):
    from gaplaw import data
    from gaplaw.data import encode
    from gaplaw.spec import DataSpec

    seen = []

    class Seen(Preparation):
        def __exit__(self, *_):
            seen.append((self.what.partition(" ")[0], self.what, self.done))
            super().__exit__()

    monkeypatch.setattr(encode, "Preparation", Seen)
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"{number} some text to learn from " * 40)
    data.load(DataSpec(source=f"folder:{tmp_path}", tokenizer="bpe:300"), tmp_path / "cache")
    characters = 5 * len("0 some text to learn from ") * 40
    assert [(what, done) for what, _, done in seen] == [("learning", characters), ("encoding", characters)]
    assert seen[0][1] == "learning the merges of bpe:300"
