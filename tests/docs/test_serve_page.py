"""docs/serve.md is true: its commands print what it shows, and its limits are those of the code."""

import re
import shutil
import subprocess

import pytest
from documents import ROOT, commands, matches
from projects import environment
from serving import in_a_process, save_network

from pipeline.apps.serve.limits import Limits
from pipeline.data import pictures

PAGE = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands need curl")
def test_each_command_prints_what_the_page_shows(tmp_path):
    from photographs import drawn_seven

    save_network(tmp_path, "digit", [str(digit) for digit in range(10)], (28, 28, 1))
    drawn_seven().save(tmp_path / "seven.png")
    (tmp_path / "README.md").write_text("no picture")
    tried = 0
    with in_a_process(tmp_path, Limits()) as (_, port):
        for command, shown in (pair for block in BLOCKS for pair in commands(block)):
            line = command.replace(":8000/", f":{port}/")
            result = subprocess.run(
                line, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True
            )
            assert result.returncode == 0, (command, result.stderr)
            assert matches(shown, result.stdout), (command, result.stdout)
            tried += 1
    assert tried == 8


def test_the_page_states_the_limits_of_the_code():
    limits, text = Limits(), " ".join(PAGE.split())
    for stated in (
        f"more than about {limits.head // 1000} kB",
        f"took more than {limits.body_seconds} s",
        f"more than {limits.upload >> 20} MiB",
        f"more than {limits.parts} parts",
        f"more than {pictures.LARGEST_UPLOAD // 10**6} million pixels",
        f"together have more than {2 * pictures.LARGEST_UPLOAD // 10**6} million",
        f"have for {limits.work_seconds} s",
        f"{limits.waiting} requests more than there are threads",
        f"bodies fill {limits.held >> 20} MiB",
        f"{limits.connections} connections",
        f"closed after {limits.head_seconds} s",
        f"not taken after {limits.answer_seconds} s",
        f"are finished ({limits.stop_seconds} s)",
        f"more than {pictures.MOST_SCANS} scans",
    ):
        assert stated in text
    assert "Uploads are read as AVIF, BMP, GIF, JPEG, PNG, TIFF or WebP" in text
    assert {*pictures.UPLOAD_FORMATS} == {"AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"}
