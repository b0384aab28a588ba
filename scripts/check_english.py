"""Check the English of what people read: docs, docstrings, comments, messages and pages.

Finds words that this project does not use, British spellings, wrong articles, doubled words and "1 rows". Checks
Markdown without its code, docstrings, comments, string literals of several words, and the text of templates; in tests,
only docstrings and comments. Text in backticks is code and is not checked.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts.local import PROJECT

CODE, TESTS = ("airflow_provider_regal", "dags", "scripts", "benchmarks"), "tests"
#: Files that contain wrong text on purpose.
NOT_CHECKED = ("scripts/check_english.py", "tests/scripts/test_check_english.py")

#: Words to avoid -> what to write instead.
NOT_OURS = {
    r"mend(?:s|ed|ing)?": "fix",
    r"nobody": "no one",
    r"whom": "who, or another sentence",
    r"go(?:es|ing)? on (?:where|with|as|from|after|until|to)": "continue, resume",
    r"to go on": "to continue, to resume",
    r"stand(?:s|ing)? in for": "replace",
    r"just so": "for the same reason",
    r"of old": "earlier",
    r"commonest": "most common",
    r"for want of": "without",
    r"los(?:e|es|t|ing) sight": "lose track",
    r"bur(?:y|ied|ies|ying)": "hide",
    r"hearsay": "unconfirmed",
    r"the like": "such as",
    r"(?:older|newer|oldest|newest|latest) word": "decision",
    r"all the same": "anyway, still",
    r"the tr(?:y|ies) (?:before|after)": "the previous try, the next try",
    r"there(?:of|in|upon|by|for)|here(?:in|by|of)|where(?:of|in|upon|by)": "of it, in it, ...",
    r"lest|albeit|ought|hence|thence|amiss": "a plain word",
    r"(?:is|are) told (?:of|by|to)": "is called with, receives",
    r"for ever": "forever",
    r"outside of": "outside",
    r"(?<!there )(?:is|are|was|were) no (?!longer|more|less|one|way|worse|stricter|need|place|opt)[a-z]\w+": "is not a",
    r"(?:source|query|function|glob|operator|hook|fixture)s? (?:gives?|gave)(?! up)": "return",
    r"(?:row|event|file|contact|record|delivery)\(s\)": "the plural that is right",
}
BRITISH = {
    r"behaviours?": "behavior",
    r"(?:colou|favou|honou|neighbou|flavou|labou|rumou|harbou)r(?:s|ed|ing|ite|ites|able|hood)?": "or",
    r"(?:organi|recogni|normali|summari|minimi|maximi|initiali|seriali|anonymi|pseudonymi|finali|optimi|authori|"
    r"customi|prioriti|categori|synchroni|capitali|materiali|standardi|speciali|locali|utili|emphasi|apologi|reali|"
    r"generali|tokeni|parameteri|visuali|memori|randomi)s(?:e|es|ed|ing|ation|ations)": "ize",
    r"(?:cancell|travell|labell|modell|signall|fuell|marshall|channell)(?:ed|ing)": "one l",
    r"licences?|(?:cent|met|lit|theat)res?|catalogues?|cheques?|grey|programmes?": "American",
    r"whilst|amongst|learnt|spelt|defence|judgement|artefacts?|fulfil|ageing|analys(?:e|ed|es|ing)": "American",
}
#: A docstring starts with what its function returns, prints or does.
FIRST_WORDS = {"Say", "Says", "Tell", "Tells", "Give", "Gives"}

#: Words whose first letter does not match their first sound.
_LIKE_A_CONSONANT = re.compile(r"uni(?!n|m)|us[aeiu]|uti|uri|url|uuid|utc|utf|eu|one\b|once|ubi", re.I)
_LIKE_A_VOWEL = re.compile(
    r"hour|honest|honor|heir|x?html|http|xcom|xz\b|sql|s3|md5|ndjson|sms\b|ssl|ssh|8|1[18]\b", re.I
)
#: Up to five capitals are read letter by letter, except these words; the letters here begin with a vowel sound.
_VOWEL_LETTERS = "AEFHILMNORSX"
_READ_AS_WORDS = {
    "NULL", "RAM", "ROM", "SELECT", "STOP", "START", "LIMIT", "REST", "HELP", "FROM", "MERGE", "RETRY", "SET", "LEFT",
    "HEAD", "NO", "FULL", "NOT", "FIFO", "FALSE", "LIKE", "READ", "NONE", "RATE",
}  # fmt: skip

_ARTICLE = re.compile(r"(?<![<\w'.,/=&-])(an?)[ \n]+(?=([A-Za-z0-9][\w.]*))", re.I)
_NOT_AFTER_AN_ARTICLE = {"and", "or", "of", "is", "in", "are"}
_DOUBLED = re.compile(r"(?<![\w-])([A-Za-z]+)(?: | *\n *)\1\b(?!['-])", re.I)
_TWICE_IS_RIGHT = {"that", "had"}
_ONE_OF_MANY = re.compile(
    r"(?<!rule )(?<![\w.,:/+*^=-])1 (?!(?:less|is|was|has|does|as|its|this|plus|minus|always|ms)\b)([a-z]+[^s\W]s)\b"
)
_INLINE_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_RULES = [
    (re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.I), kind, instead)
    for kind, table in (("not ours", NOT_OURS), ("British", BRITISH))
    for pattern, instead in table.items()
]
#: One search that skips nearly all texts.
_ANY = re.compile("|".join(f"(?:{rule.pattern})" for rule, _, _ in _RULES), re.I)
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|CREATE|DELETE)\b")


class Passage(NamedTuple):
    """A text that people read."""

    line: int
    text: str
    is_docstring: bool = False


def faults(passage: Passage) -> Iterator[tuple[int, str]]:
    """Return the line and the reason of each fault."""
    text = _INLINE_CODE.sub(_blanked, passage.text)

    def line_of(found: re.Match[str]) -> int:
        return passage.line + text.count("\n", 0, found.start())

    if passage.is_docstring and (first := text.split(None, 1)) and first[0] in FIRST_WORDS:
        yield passage.line, f"a docstring begins with '{first[0]}'; begin with what is returned, printed or done"
    if _ANY.search(text):
        for rule, kind, instead in _RULES:
            for found in rule.finditer(text):
                yield line_of(found), f"'{found.group()}' is {kind}: {instead}"
    for found in _ARTICLE.finditer(text):
        article, word = found.groups()
        if (right := article_of(word)) and article.lower() != right:
            yield line_of(found), f"'{article} {word}': {right}"
    for found in _DOUBLED.finditer(text):
        if found.group(1).lower() not in _TWICE_IS_RIGHT:
            yield line_of(found), f"'{found.group(1)}' is doubled"
    for found in _ONE_OF_MANY.finditer(text):
        yield line_of(found), f"'{found.group()}' is one"


def article_of(word: str) -> str:
    """Return the article of a word by its sound; empty if it has none."""
    if (len(word) == 1 and word.isalpha()) or word in _NOT_AFTER_AN_ARTICLE:
        return ""
    if _LIKE_A_CONSONANT.match(word):
        return "a"
    if _LIKE_A_VOWEL.match(word):
        return "an"
    if word.isupper() and len(word) <= 5 and word not in _READ_AS_WORDS:
        return "an" if word[0] in _VOWEL_LETTERS else "a"
    return "an" if word[0] in "aeiouAEIOU" else "a"


def _blanked(found: re.Match[str]) -> str:
    """Return the replacement of a part that is not checked; line numbers stay the same."""
    return "§" + "\n" * found.group().count("\n")


_MARKDOWN = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$|<[^>\n]+>|\]\([^)\s]*\)|\bhttps?://\S+", re.MULTILINE | re.DOTALL)
_TEMPLATE = re.compile(r"<style.*?</style>|<code>.*?</code>|\{\{.*?\}\}|\{[%#].*?[%#]\}|<[^>]*>", re.DOTALL)


def passages(path: Path, *, messages: bool = True) -> Iterator[Passage]:
    """Return the passages of a file that people read.

    :param messages: for Python files, include string literals.
    """
    text = path.read_text()
    if path.suffix == ".py":
        yield from _of_python(text, messages=messages)
    else:
        yield Passage(1, (_MARKDOWN if path.suffix == ".md" else _TEMPLATE).sub(_blanked, text))


def _of_python(text: str, *, messages: bool) -> Iterator[Passage]:
    tree = ast.parse(text)
    seen: set[int] = set()
    for docstring in _docstrings(tree):
        seen.add(id(docstring))
        yield Passage(docstring.lineno, docstring.value, is_docstring=True)
    for node in ast.walk(tree) if messages else ():
        if isinstance(node, ast.JoinedStr):
            seen.update(map(id, node.values))
            yield Passage(
                node.lineno,
                "".join(getattr(part, "value", "") if isinstance(part, ast.Constant) else "§" for part in node.values),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in seen
            and _is_prose(node.value)
        ):
            yield Passage(node.lineno, node.value)
    yield from _comments(text)


def _is_prose(text: str) -> bool:
    return " " in text and not _SQL.match(text)


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        nodes += body
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            value = getattr(body[0], "value", None) if isinstance(body[0], ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def _comments(text: str) -> Iterator[Passage]:
    """Return the comments; comments on consecutive lines are one text."""
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("#"):
            block.append(line.lstrip().lstrip("#:"))
            continue
        if block:
            yield Passage(number - len(block), "\n".join(block))
            block = []
        if "  # " in line:
            yield Passage(number, line.rpartition("  # ")[2])


def files() -> list[Path]:
    """Return all files that are checked."""
    found = {*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")}
    for folder in (*CODE, TESTS):
        found |= {*(PROJECT / folder).rglob("*.py"), *(PROJECT / folder).rglob("*.j2")}
    return sorted(found - {PROJECT / name for name in NOT_CHECKED})


def main() -> None:
    """Print all faults."""
    wrong = [
        f"{path.relative_to(PROJECT)}:{line}: {reason}"
        for path in files()
        for passage in passages(path, messages=path.relative_to(PROJECT).parts[0] != TESTS)
        for line, reason in faults(passage)
    ]
    print("\n".join(wrong) or f"{len(files())} files: nothing wrong in their English")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
