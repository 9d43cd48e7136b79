"""Messages of many problems: rows with one mistake share a line, and nothing is lost."""

from unidpo_mm.errors import DataError, Problem, RecipeError, grouped


def missing(row: int, name: str | None = None) -> Problem:
    problem = f"the image '{name or f'{row}.png'}' does not exist"
    return Problem(f"pairs.jsonl row {row}, field 'images'", problem, "Correct the path")


def test_one_mistake_in_many_rows_is_one_line() -> None:
    error = DataError([missing(row) for row in range(1, 1201)])
    assert len(error.problems) == 1200
    assert str(error).splitlines() == [
        "the data cannot be used (1,200 problems):",
        "  - pairs.jsonl row 1, field 'images': the image '1.png' does not exist. Correct the "
        "path. The same for 1,199 more, for example pairs.jsonl row 2, field 'images'; "
        "pairs.jsonl row 3, field 'images'.",
    ]


def test_other_mistakes_and_remedies_keep_their_lines() -> None:
    others = [
        Problem("pairs.jsonl row 9, field 'prompt'", "the prompt is empty", "Write a prompt"),
        Problem("pairs.jsonl row 10, field 'images'", "'x' does not exist", "Download it"),
    ]
    lines = grouped([*(missing(row) for row in range(1, 6)), *others, missing(7)])
    assert [number for _, number in lines] == [6, 1, 1]
    assert lines[1][0] == str(others[0])


def test_up_to_three_problems_are_printed_one_by_one() -> None:
    problems = [missing(row) for row in range(1, 4)]
    assert grouped(problems) == [(str(problem), 1) for problem in problems]


def test_a_repeated_mistake_in_one_row_has_no_further_example() -> None:
    ((line, number),) = grouped([missing(1, f"{n}.png") for n in range(5)])
    assert number == 5
    assert line.endswith("Correct the path. 4 more.")


def test_keys_of_a_recipe_are_never_grouped() -> None:
    problems = [
        Problem(f"recipe.yaml line {n}, key 'train.a{n}'", "found the text 'x'", "Write a number")
        for n in range(6)
    ]
    assert len(grouped(problems)) == 6


def test_a_single_problem_is_counted_as_one() -> None:
    assert "problem" not in str(RecipeError(missing(1)))
    two = str(RecipeError([missing(1), missing(2)]))
    assert "(2 problems)" in two


def test_a_value_of_a_million_characters_is_cut() -> None:
    problem = Problem("here", "found '" + "x" * 1_000_000, "Correct it")
    assert len(str(problem)) < 3000
