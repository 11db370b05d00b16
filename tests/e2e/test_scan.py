"""`make scan` finds what is wrong: the template of today passes in `make test` itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from laptop.places import PROJECT
from laptop.scan import TEMPLATE, run_checkov, run_parliament, run_zizmor

if TYPE_CHECKING:
    from pathlib import Path

OPEN_TO_ALL = """
  OpenSecurityGroup:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: Open
      SecurityGroupIngress:
        - {Description: All, IpProtocol: tcp, FromPort: 22, ToPort: 22, CidrIp: 0.0.0.0/0}

Outputs:
"""


def test_an_open_port_is_found(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.read_text().replace("\nOutputs:\n", OPEN_TO_ALL))
    assert "OpenSecurityGroup" in run_checkov(template)


def test_an_action_that_does_not_exist_is_found(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.read_text().replace("secretsmanager:GetSecretValue", "secretsmanager:GetSecret"))
    assert "secretsmanager:GetSecret" in run_parliament(template)


def test_an_action_on_the_wrong_kind_of_resource_is_found(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.read_text().replace("Action: secretsmanager:GetSecretValue", "Action: s3:GetObject"))
    assert "s3:GetObject" in run_parliament(template)


def test_an_input_that_reaches_the_shell_is_found(tmp_path: Path) -> None:
    workflows = tmp_path / ".github" / "workflows"
    shutil.copytree(PROJECT / ".github" / "workflows", workflows)
    hotfix = workflows / "hotfix.yml"
    hotfix.write_text(hotfix.read_text().replace("./pg-hotfix ", 'echo "${{ inputs.reason }}"; ./pg-hotfix ', 1))
    assert "template-injection" in run_zizmor(workflows)
    assert run_zizmor(PROJECT / ".github" / "workflows") == ""
