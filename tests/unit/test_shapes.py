from buntime.web.wire.shapes import Response, encode, encode_after


class Said(Response):
    data: str


def test_json_after_a_beginning_is_the_same_json() -> None:
    for text in (
        "",
        "plain",
        'quotes " and \\ and \n',
        "żółć 🦊",
        "\x00\x1f\x7f",
        "x" * 300_000,
        "half a pair: \ud83d.",
    ):
        assert encode_after(b"data: ", Said(data=text)) == b"data: " + encode(Said(data=text))
