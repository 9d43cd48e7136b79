"""Our own lenient rules: formatting around an answer does not matter, and nothing is guessed.

The scores differ from those of the reference toolkits and never share a column with them.

For options, the places of an answer are read from the clearest to the least clear: an answer tag, a
box, the text after "the answer is", the complete response. In each place a letter counts only if
it is a choice: "A dog" begins with an article. Two letters ("A or B") are not a choice. If no
letter is chosen, the text of exactly one option counts.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unidpo_mm.reasoning import strip_reasoning

from .boxed import find_boxes
from .options import FAILED_CALL, REFUSALS, REFUSED, Choice
from .short_answers import relaxed_match
from .yes_no import WORDS as YES_NO_WORDS
from .yes_no import YesNo

ANNOUNCED = re.compile(
    r"(?:answer|result|value|option|choice)\s*(?:is|are|:|=)\s*:?\s*", re.IGNORECASE
)
WRAPPING = " \t\n*_`'\"$\u201c\u201d\u2018\u2019"
"""Whitespace, Markdown and LaTeX marks, straight and curly quotes."""
ENDING = ".!,;:。"
WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
CURRENCY = re.compile(r"^(?:[$€£¥₹]|us\$|usd|eur|gbp)\s*|\s*(?:dollars?|euros?|usd|eur|gbp)$", re.I)
SEPARATOR = re.compile(r"(?<=\d)[,\u00a0\u2009\u202f ](?=\d{3}(?:\D|$))")
UNIT = re.compile(r"^(-?[\d.]+(?:e[+-]?\d+)?)\s*(?:%|percent|[^\W\d_]+\.?)$", re.IGNORECASE)


def strip_wrapping(response: str) -> str:
    """Return a response without reasoning, tags, box, introduction, quotes and final period."""
    text = inside_answer_tag(strip_reasoning(response).text).strip()
    if boxes := find_boxes(text):
        text = plain(boxes[-1])
    announced = list(ANNOUNCED.finditer(text))
    if announced:
        text = text[announced[-1].end() :]
    text = text.strip(WRAPPING)
    while text and text[-1] in ENDING:
        text = text[:-1].strip(WRAPPING)
    return text


def clean_yes_no(response: str) -> YesNo | None:
    """Return the only one of yes and no that a response contains, whatever surrounds it.

    Reasoning does not count. If both words occur, the announced answer decides if it begins with
    one of them, otherwise the first word of the response.
    """
    response = inside_answer_tag(strip_reasoning(response).text)
    words = {word.lower() for word in WORDS.findall(response)} & YES_NO_WORDS.keys()
    if len(words) == 1:
        return YES_NO_WORDS[words.pop()]
    for text in (strip_wrapping(response), response):
        first = WORDS.search(text)
        if first and first[0].lower() in words:
            return YES_NO_WORDS[first[0].lower()]
    return None


def clean_match(response: str, answers: Sequence[str]) -> bool:
    """Return whether a response matches an answer, ignoring units and thousands separators.

    A percentage equals the bare number, since charts are commonly read either way.
    """
    text = strip_wrapping(response)
    return relaxed_match(text, answers) or relaxed_match(_number(text), list(map(_number, answers)))


def _number(text: str) -> str:
    """Return the number of a text that is a number with a currency or unit, or else the text."""
    bare = SEPARATOR.sub("", CURRENCY.sub("", text.strip()))
    match = UNIT.match(bare)
    return match[1] if match else bare


ANSWER_TAGS = re.compile(
    r"<(?P<tag>answer|final_answer|final|conclusion|response)(?:\s[^<>]*)?>(?P<content>.*?)"
    r"(?:</(?P=tag)\s*>|\Z)"
    r"|<\|begin_of_(?P<kind>box|solution|answer)\|>(?P<piped>.*?)(?:<\|end_of_(?P=kind)\|>|\Z)"
    r"|\[BEGIN FINAL RESPONSE\](?P<final>.*?)(?:\[END FINAL RESPONSE\]|\Z)",
    re.IGNORECASE | re.DOTALL,
)
"""Tags with which models mark the answer after their reasoning."""
CHOICE_ANNOUNCED = re.compile(
    r"(?:\b(?:answer|option|choice|solution)\b\W{0,4}(?:letter\W{0,2})?"
    r"(?:is|would\s+be|should\s+be|must\s+be|will\s+be|:|=|\u2192|->)"
    r"|\b(?:i|i'd|i\s+would|we|i'll)\s+(?:choose|select|pick|go\s+(?:with|for)|opt\s+for)\b"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|\s*[:\uff1a])|\u6b63\u786e\u9009\u9879\u662f|\u9009\u62e9(?!\u9898)|\u9009(?!\u9879|\u62e9)"
    r"|\u7b54\u3048\u306f|\uc815\ub2f5\uc740|\ub2f5\uc740|\ub2f5\s*:)",
    re.IGNORECASE,
)
"""Phrases that announce an answer, also in Chinese, Japanese and Korean."""
BRACKETS = str.maketrans(
    "\u3010\u3011\u300c\u300d\u300e\u300f\u3008\u3009\u300a\u300b", "[][][][][]"
)
LATEX = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}"
)
FORMULA = re.compile(r"\\[()\[\]]|\$+|\\(?:left|right|displaystyle|,|;|!|quad)(?![A-Za-z])")
MARKUP = " \t\r\n*_`'\"~#>\u201c\u201d\u2018\u2019"
CLOSING = ".!,;:)]}\u3002"

WORD = r"[A-Za-z0-9\u00c0-\u024f]"
LETTER = re.compile(
    rf"(?<!{WORD})(?<!{WORD}['\u2019\-+&.])[A-Za-z](?!{WORD})(?!['\u2019\-+&.]{WORD})(?!\+)"
)
"""A letter that is not part of a word, a contraction or a name such as B-2."""
WORD_LETTERS = frozenset("AI")
"""Letters that are English words: an article and a pronoun."""
OPTION_WORD = re.compile(r"\b(?:option|choice|letter|answer|alternative)\W{0,3}\Z", re.IGNORECASE)
OPEN = re.compile(r"(?:^|[^\w])[\s*_`'\"\u201c\u2018]*[(\[{*_`'\"\u201c\u2018<]\s*\Z")
CLOSE = re.compile(r"\s*[)\]}*_`'\"\u201d\u2019>]")
DELIMITED = re.compile(r"\s*(?:\Z|[.,:;!?)\]}*_`'\"\u201d\u2019>\n\u3001\u3002\u2013\u2014]|-\s)")
REASON = re.compile(r"\s+(?:because|since|as|due)\b", re.IGNORECASE)
VERB = re.compile(
    r"\s+(?:is|was|seems|looks|appears|would|must|should|matches|shows|and|or|nor|but|both)\b",
    re.IGNORECASE,
)
"""Words that may follow a chosen letter A or I, apart from reasons and punctuation."""
PRONOUN_VERB = re.compile(r"\s+(?:is|was|and|or|nor)\b", re.IGNORECASE)
NEXT_WORD = re.compile(r"\s+\w")
JOINED = re.compile(
    r"[\s)\]*_'\".]*(?:,|/|&|\band\b|\bor\b|\bor/and\b|\band/or\b|\u6216|\u548c|\u4e0e|\u53ca)+"
    r"\s*(?:(?:and|or|option|choice)\s+)*[\s(\[*_'\"]*(?P<letter>[A-Za-z])(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
NEGATION = re.compile(
    r"(?:\bnot|n't|n\u2019t|\bnever|\bneither|\bnor|\bwithout|\brather\s+than|\binstead\s+of|"
    r"\bunlike|\bexcept|\bno|\brules?\s+out|\beliminates?)"
    r"(?:\s+(?:a|an|the|be|option))*\s*[(\['\"*]*\Z",
    re.IGNORECASE,
)
LISTED = re.compile(r"(?:\A|\n)\W*\Z")
SHORT = 3
"""Maximum length of an option text that counts only in short responses."""
SHORT_RESPONSE = 40
ARTICLE = re.compile(r"^(?:a|an|the)\s+")


@dataclass(frozen=True)
class _Mention:
    """A letter that may be the choice."""

    letter: str  # In upper case
    certain: bool  # It is marked as a choice; otherwise the rest of the text must not contradict it
    leads: bool  # Only punctuation precedes it
    starts_line: bool  # It begins a line, like the options of a question
    joined: str | None  # The other letter of "A or B"


def clean_option(response: str, options: Mapping[str, str]) -> Choice:
    """Return the option (letter -> text) that a response chooses, ignoring its reasoning."""
    text = strip_reasoning(response).text
    if any(phrase in text for phrase in REFUSALS):
        return Choice(None, refused=True)
    if FAILED_CALL in text:
        return Choice(None)
    for place, announced in answer_places(text):
        place_text = plain(place)
        mentions = list(_mentions(place_text, options, announced=announced))
        texts = _texts(place_text, options)
        if mentions:
            letter, certain = _single(mentions)
            agrees = certain or not texts or texts == {letter}
            return Choice(letter if agrees else None)
        if texts:
            return Choice(texts.pop() if len(texts) == 1 else None)
    remainder = plain(text).strip(MARKUP + CLOSING)
    return Choice(None, refused=remainder == REFUSED and REFUSED not in options)


def answer_places(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (text, is announced) for the places that may contain the answer, clearest first."""
    text = inside_answer_tag(text)
    if boxes := find_boxes(text):
        yield boxes[-1], True
    for match in reversed(list(CHOICE_ANNOUNCED.finditer(text))):
        yield text[match.end() :], True
    bare = {plain(line).strip(): line for line in text.splitlines() if _is_bare(line)}
    if len(bare) == 1:
        yield bare.popitem()[1], True
    yield text, False


def inside_answer_tag(text: str) -> str:
    """Return the content of the last answer tag, or the text itself if there is none."""
    matches = list(ANSWER_TAGS.finditer(text))
    if not matches:
        return text
    parts = (matches[-1][name] for name in ("content", "piped", "final"))
    return next((part for part in parts if part is not None), "")


def plain(text: str) -> str:
    """Return a text without LaTeX commands and with ASCII letters and brackets."""
    text = unicodedata.normalize("NFKC", text).translate(BRACKETS)
    while (shorter := LATEX.sub(r"\1", text)) != text:
        text = shorter
    return FORMULA.sub(" ", text)


def _is_bare(line: str) -> bool:
    """Return whether a line is a single letter with any punctuation."""
    return re.fullmatch(r"[\W_]*[A-Za-z][\W_]*", plain(line)) is not None


def _mentions(text: str, options: Mapping[str, str], *, announced: bool) -> Iterator[_Mention]:
    """Yield the letters in a text that may be the choice."""
    for match in LETTER.finditer(text):
        before, after, letter = text[: match.start()], text[match.end() :], match[0].upper()
        if letter not in options or NEGATION.search(before):
            continue
        leads = not before.strip(MARKUP + "([{<.:;,-\u2022")
        starts_line = LISTED.search(before) is not None
        marked = bool(OPTION_WORD.search(before)) or bool(
            OPEN.search(before) and CLOSE.match(after)
        )
        ends = DELIMITED.match(after) is not None
        follows = ends or REASON.match(after) is not None
        if match[0].islower() or letter in WORD_LETTERS:
            certain = marked or (leads and follows) or (starts_line and after[:1] in (")", "."))
            verb = (PRONOUN_VERB if letter == "I" else VERB).match(after) is not None
            if match[0].islower():
                possible = certain or (announced and leads and verb)
            else:
                possible = certain or follows or verb or not NEXT_WORD.match(after)
        else:
            certain = marked or (leads and (follows or announced)) or (starts_line and ends)
            possible = True
        if possible:
            yield _Mention(
                letter, certain, leads, starts_line and ends, _joined(after, letter, options)
            )


def _joined(after: str, letter: str, options: Mapping[str, str]) -> str | None:
    """Return the other letter if a text continues like "A or B"."""
    match = JOINED.match(after)
    if match is None:
        return None
    other, rest = match["letter"], match["rest"]
    if not LETTER.match(other + rest) or other.upper() not in options or other.upper() == letter:
        return None
    article = other.upper() in WORD_LETTERS and not (DELIMITED.match(rest) or VERB.match(rest))
    return None if article or (other.islower() and not DELIMITED.match(rest)) else other.upper()


def _single(mentions: Sequence[_Mention]) -> tuple[str | None, bool]:
    """Return the only chosen letter, `None` if there are several, and whether it is certain."""
    first = mentions[0]
    if first.leads and first.certain and first.joined is None:
        at_line_starts = {mention.letter for mention in mentions if mention.starts_line}
        if at_line_starts <= {first.letter}:
            return first.letter, True  # the rest gives reasons
    joined = {mention.letter for mention in mentions if mention.joined} | {
        mention.joined for mention in mentions if mention.joined
    }
    letters = {mention.letter for mention in mentions}
    certain_letters = {mention.letter for mention in mentions if mention.certain}
    if len(letters) == 1 and not joined:
        return first.letter, bool(certain_letters)
    if len(certain_letters) == 1 and not certain_letters & joined:
        return certain_letters.pop(), True
    return None, True


def _texts(text: str, options: Mapping[str, str]) -> set[str]:
    """Return the options whose texts occur as complete words and are not negated."""
    comparable = _comparable(text)
    texts = {letter: _comparable(option) for letter, option in options.items()}
    same = {
        letter for letter, option in texts.items() if option and _bare(comparable) == _bare(option)
    }
    if same:
        return same
    limit = max(SHORT_RESPONSE, 2 * sum(map(len, texts.values())))
    spans = [
        (match.start(), match.end(), letter)
        for letter, option in texts.items()
        if (len(option) > 1 or option.isdigit())
        and (len(option) > SHORT or len(comparable) <= limit)
        for match in _occurrences(option, comparable)
        if not NEGATION.search(comparable[: match.start()])
    ]
    return {
        letter
        for start, end, letter in spans
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b, other in spans)
    }


def _occurrences(option: str, text: str) -> Iterator[re.Match[str]]:
    bare = _bare(option) or option
    return re.finditer(rf"(?<!\w)(?<!\d[.,]){re.escape(bare)}(?!\w)(?![.,]\d)", text)


def _comparable(text: str) -> str:
    return " ".join(plain(text).casefold().split()).strip(MARKUP + CLOSING)


def _bare(text: str) -> str:
    """Return a text without its leading article."""
    return ARTICLE.sub("", text)
