"""A development server with hot reload works as on the developer's own machine."""

import json

import pytest

from tests.acceptance.client import Session
from tests.browser.conftest import OpenSession
from tests.browser.showing import preview_url, start
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.sandbox

PACKAGE = {
    "name": "app",
    "private": True,
    "type": "module",
    "dependencies": {"react": "19.3.1", "react-dom": "19.3.1"},
    "devDependencies": {"vite": "8.3.8", "@vitejs/plugin-react": "6.3.0"},
}
FILES = {
    "package.json": json.dumps(PACKAGE),
    "vite.config.js": """
        import react from "@vitejs/plugin-react";
        export default { plugins: [react()] };
    """,
    "index.html": """<!doctype html>
        <html lang="en"><head><title>App</title><link rel="icon" href="data:,"></head>
        <body><div id="root"></div><script type="module" src="/src/main.jsx"></script></body></html>
    """,
    "src/main.jsx": """
        import { createRoot } from "react-dom/client";
        import { App } from "./App.jsx";
        createRoot(document.getElementById("root")).render(<App />);
    """,
}


def _component(heading: str) -> str:
    return f"""
        import {{ useState }} from "react";
        export function App() {{
          const [count, setCount] = useState(0);
          return <><h1>{heading}</h1><button onClick={{() => setCount(count + 1)}}>{{count}} times</button></>;
        }}
    """


def _write(session: Session, path: str, content: str) -> None:
    session.write(f"app/{path}", content).done()


def test_a_vite_project_loads_and_an_edited_component_appears_without_a_reload(
    open_session: OpenSession, visitor: Visitor
) -> None:
    """Vite listens on `localhost` alone, as it does by default. Needs the npm registry."""
    session = open_session(resourceLimits={"cpu": 2})
    for path, content in FILES.items():
        _write(session, path, content)
    _write(session, "src/App.jsx", _component("Before"))
    installed = session.command("cd app && bun install 2>&1", timeout=120)
    assert installed["exitCode"] == 0, installed
    start(session, "cd app && exec bunx vite --port 8080 --strictPort")

    with visitor.page.expect_websocket():
        assert visitor.visit(preview_url(session)) == 200
    visitor.sees("Before")
    button = visitor.page.get_by_role("button")
    button.click()
    button.click()
    visitor.page.get_by_text("2 times").wait_for()
    visitor.page.evaluate("window.loadedOnce = true")

    _write(session, "src/App.jsx", _component("After"))
    visitor.sees("After")
    assert visitor.page.evaluate("window.loadedOnce"), "the page was loaded again"
    assert button.inner_text() == "2 times", "its state is kept"
    assert len(visitor.visits) == 1
    assert visitor.complaints == []
