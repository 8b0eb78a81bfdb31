"""Generates a TypeScript project of more than 200 files that import each other, and computes its result without Bun.

The project has ten areas of nineteen steps. A step imports the previous step of its area by a relative path, and the
same step of the previous area by a path alias of tsconfig.json.
"""

import json

AREAS, STEPS = 10, 19
MODULUS = 1_000_003
TESTS = AREAS * STEPS
SEEDS = [7 * area + 1 for area in range(AREAS)]

_TSCONFIG = {
    "compilerOptions": {
        "target": "esnext",
        "module": "preserve",
        "moduleResolution": "bundler",
        "strict": True,
        "noUncheckedIndexedAccess": True,
        "verbatimModuleSyntax": True,
        "resolveJsonModule": True,
        "noEmit": True,
        "skipLibCheck": True,
        "types": ["bun"],
        "paths": {
            "@core/*": ["./src/core/*"],
            "@data": ["./src/data/seeds.json"],
            **{f"@area{area}/*": [f"./src/area{area}/*"] for area in range(AREAS)},
        },
    },
    "include": ["src"],
}
_PACKAGE = {
    "name": "two-hundred-files",
    "private": True,
    "type": "module",
    "devDependencies": {"typescript": "7.0.2", "@types/bun": "1.4.5"},
}
_STEP = """\
export const MODULUS = 1_000_003;

export enum Kind {
  First = "first",
  Following = "following",
}

export interface Valued<T> {
  readonly value: T;
}

export abstract class Step<T extends number = number> implements Valued<number> {
  static made = 0;
  #value?: number;

  constructor(
    readonly kind: Kind,
    protected readonly inputs: readonly Valued<T>[],
  ) {
    Step.made++;
  }

  get value(): number {
    return (this.#value ??= this.compute(this.inputs.map((input) => input.value)) % MODULUS);
  }

  protected abstract compute(inputs: readonly T[]): number;
}
"""
_MAIN = """\
import {{ Step }} from "@core/step";
{imports}

const areas = {{ {names} }} satisfies Record<string, readonly Step[]>;
const {{ steps: again }} = await import("@area0/index");
const sum = (steps: readonly Step[]): number => steps.reduce((total, step) => total + step.value, 0);

console.log(
  JSON.stringify({{
    last: area{last}.at(-1)?.value,
    sums: Object.values(areas).map(sum),
    made: Step.made,
    same: again === area0,
  }}),
);
"""


def files() -> dict[str, str]:
    """Contents by paths relative to the project's directory."""
    return {
        "package.json": json.dumps(_PACKAGE),
        "tsconfig.json": json.dumps(_TSCONFIG),
        "src/core/step.ts": _STEP,
        "src/data/seeds.json": json.dumps(SEEDS),
        "src/main.ts": _main(),
        **{step_path(area, step): _step(area, step) for area in range(AREAS) for step in range(STEPS)},
        **{f"src/area{area}/index.ts": _index(area) for area in range(AREAS)},
        **{f"src/area{area}/area.test.ts": _test(area) for area in range(AREAS)},
    }


def step_path(area: int, step: int) -> str:
    return f"src/area{area}/step{step}.ts"


def printed() -> dict[str, object]:
    """What its main program prints."""
    values = _values()
    return {
        "last": values[-1][-1],
        "sums": [sum(area) for area in values],
        "made": AREAS * STEPS,
        "same": True,
    }


def _values() -> list[list[int]]:
    values: list[list[int]] = []
    for area in range(AREAS):
        row: list[int] = []
        for step in range(STEPS):
            total = 3 * (row[-1] if row else SEEDS[area]) + (values[-1][step] if values else 0)
            row.append((total + area + step) % MODULUS)
        values.append(row)
    return values


def _step(area: int, step: int) -> str:
    imports = ['import { Kind, Step, type Valued } from "@core/step";']
    if step:
        imports.append(f'import {{ step as before }} from "./step{step - 1}";')
    else:
        imports.append('import seeds from "@data";')
    if area:
        imports.append(f'import {{ step as beside }} from "@area{area - 1}/step{step}";')
    first = "before" if step else f"{{ value: seeds[{area}]! }}"
    inputs = f"[{first}, {'beside' if area else '{ value: 0 }'}]"
    return "\n".join(
        [
            *imports,
            "",
            f"class Step{step}OfArea{area} extends Step {{",
            "  protected override compute([own = 0, other = 0]: readonly number[]): number {",
            f"    return 3 * own + other + {area + step};",
            "  }",
            "}",
            "",
            f"const inputs: readonly Valued<number>[] = {inputs};",
            f"export const step: Step = new Step{step}OfArea{area}(Kind.{'Following' if step else 'First'}, inputs);",
            "",
        ]
    )


def _index(area: int) -> str:
    imports = [f'import {{ step as step{step} }} from "./step{step}";' for step in range(STEPS)]
    names = ", ".join(f"step{step}" for step in range(STEPS))
    core = 'import type { Step } from "@core/step";'
    return "\n".join([core, *imports, "", f"export const steps: readonly Step[] = [{names}];", ""])


def _test(area: int) -> str:
    return f"""\
import {{ describe, expect, test }} from "bun:test";
import {{ steps }} from "@area{area}/index";

describe("area {area}", () => {{
  test.each({json.dumps(list(enumerate(_values()[area])))})("step %i is %i", (step, value) => {{
    expect(steps[step]?.value).toBe(value);
  }});
}});
"""


def _main() -> str:
    imports = "\n".join(f'import {{ steps as area{area} }} from "@area{area}/index";' for area in range(AREAS))
    names = ", ".join(f"area{area}" for area in range(AREAS))
    return _MAIN.format(imports=imports, names=names, last=AREAS - 1)
