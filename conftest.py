"""What tests of both languages and of all directories share."""

pytest_plugins = ["tests.typescript", "tests.side_by_side"]
