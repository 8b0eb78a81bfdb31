"""What a client prefers, by its Accept header."""


def prefers_page(accept: str) -> bool:
    """Whether an Accept header prefers HTML over JSON, as browsers do when they show a page."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        media, *parameters = (text.strip() for text in part.split(";"))
        if media in weights:
            weights[media] = _weight(parameters)
    return weights["text/html"] > 0 and weights["text/html"] >= weights["application/json"]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
