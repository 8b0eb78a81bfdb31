"""Lints and renders a chart with Helm, and checks what it renders by the schemas of Kubernetes. Offline.

.tools/charts/bin/python judge.py CHART, with a list of values as JSON on stdin. Prints a list as JSON, for each:
{"refused": message or null, "lint": messages, "manifests": {file: manifest}, "versions": [version],
"invalid": [message]}
"""

import json
import sys

import helm_python as helm
import kubernetes_validate.utils
import yaml

VERSIONS = 3  # of Kubernetes, the last ones


def judged(chart: helm.Chart, path: str, values: dict[str, object]) -> dict[str, object]:
    try:
        chart.validate_schema(values)
    except helm.HelmValuesError as refused:
        return {"refused": str(refused)}
    rendered = chart.render(values, name="demo", namespace="sandboxes")
    manifests = {name: yaml.safe_load(text) for name, text in rendered.items() if name.endswith(".yaml")}
    manifests = {name.rpartition("/")[2]: manifest for name, manifest in manifests.items() if manifest}
    versions = sorted(set(kubernetes_validate.utils.all_versions()), key=_numbers)[-VERSIONS:]
    return {
        "refused": None,
        "lint": [told for told in helm.lint(path, values, strict=True)["messages"] if told["severity"] > 1],
        "manifests": manifests,
        "versions": versions,
        "invalid": [wrong for version in versions for one in manifests.values() for wrong in _wrong(one, version)],
    }


def _wrong(manifest: object, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as wrong:
        return [f"{version}: {wrong.message}"]
    return []


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    (place,) = sys.argv[1:]
    with helm.Chart.load(place) as chart:
        print(json.dumps([judged(chart, place, values) for values in json.load(sys.stdin)]))
