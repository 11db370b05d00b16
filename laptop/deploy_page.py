"""`make reference`: writes the tables of parameters in docs/deploy.md from template.yaml, which describes them."""

import sys
from collections.abc import Iterator
from typing import Any

from samcli.yamlhelper import yaml_parse  # type: ignore[import-untyped]

from laptop.places import PROJECT

PAGE = PROJECT / "docs" / "deploy.md"
BEGIN = "<!-- The parameters. `make reference` writes them from template.yaml. -->\n"
END = "<!-- The end of the parameters. -->\n"


def main() -> int:
    template = yaml_parse((PROJECT / "template.yaml").read_text())
    PAGE.write_text(with_tables(PAGE.read_text(), parameter_tables(template)))
    return 0


def with_tables(page: str, tables: str) -> str:
    """Returns the page with these tables between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{tables}\n{end}{after}"


def parameter_tables(template: dict[str, Any]) -> str:
    """Returns a table for each group of parameters, in the order in which SAM asks for them."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return "\n".join(line for group in groups for line in group_lines(group, template["Parameters"]))


def group_lines(group: dict[str, Any], parameters: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {group['Label']['default']}", "")
    yield from ("| parameter | default | what it is | accepts |", "|---|---|---|---|")
    for name in group["Parameters"]:
        parameter = parameters[name]
        default = f"`{parameter['Default']}`" if "Default" in parameter else "none: give it"
        cells = [f"`{name}`", default.replace("``", "empty"), parameter["Description"], accepted(parameter)]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def accepted(parameter: dict[str, Any]) -> str:
    constraint: str = parameter["ConstraintDescription"]
    return constraint.removeprefix("must be ").removesuffix(".")


if __name__ == "__main__":
    sys.exit(main())
