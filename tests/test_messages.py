from sr_transformers.messages import one_line, shown


def test_values_of_any_size_are_a_line():
    laughs: object = list(range(9))
    for _ in range(9):
        laughs = [laughs] * 9  # 10^9 numbers
    for value in (laughs, "x" * 10**6, {str(n): n for n in range(10**5)}, 10**5000, [["a" * 500] * 500] * 500):
        assert len(shown(value)) <= 305
    assert shown("short") == "'short'"


def test_the_middle_of_a_long_text_is_left_out():
    assert one_line("what\n\n  happened ") == "what happened"
    line = one_line("begin " + "x" * 10**7 + " end", 100)
    assert line.startswith("begin xxx")
    assert len(line) <= 105
