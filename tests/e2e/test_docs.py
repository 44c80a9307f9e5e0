# SPDX-License-Identifier: Apache-2.0
"""The papers tell the truth: option tables, sample configurations, links."""

import pathlib
import re
import shutil
import subprocess

import pytest

from support.procs import BIN_DIR, SOURCE_DIR

DOCS = SOURCE_DIR / "docs"


def run(*args):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60,
                          check=False)


def test_option_tables_are_those_of_the_programs():
    done = run(SOURCE_DIR / "scripts/docs", "--check", BIN_DIR)
    assert done.returncode == 0, done.stderr


@pytest.fixture(name="samples")
def samples_fixture(tmp_path, pki):
    """The sample configurations with every file that they name."""
    for sample in (DOCS / "examples").glob("*.json"):
        text = sample.read_text()
        # What a packager would have made for the user "deputy".
        for folder in ("/var/log/deputy-keyserver", "/var/log/deputy-dcissuer",
                       "/var/log/deputy-proxy", "/var/lib/deputy-proxy", "/run/deputy",
                       "/var/log/deputy-certmanager"):
            (tmp_path / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
            text = text.replace(f'"{folder}/', f'"{tmp_path}{folder}/')
        (tmp_path / sample.name).write_text(text)
    for folder in ("tls", "keys", "certs"):
        (tmp_path / folder).mkdir()
    parts = pki.ca("parts")
    shutil.copy(parts.cert, tmp_path / "tls/parts-ca.pem")
    for part in ("keyserver", "issuer", "proxy"):
        identity = parts.issue(part, san=[f"DNS:{part}.internal", "IP:127.0.0.1"])
        shutil.copy(identity.cert, tmp_path / f"tls/{part}.pem")
        shutil.copy(identity.key, tmp_path / f"tls/{part}.key")
    for level in ("primary", "backup"):
        leaf = pki.ca(level).issue_leaf("www.example.com")
        shutil.copy(leaf.cert, tmp_path / f"certs/www.{level}.pem")
        shutil.copy(leaf.cert, tmp_path / f"keys/{level}.pem")
        shutil.copy(leaf.key, tmp_path / f"keys/{level}.key")
    shutil.copy(pki.ca("api").issue_leaf("api.example.com").cert,
                tmp_path / "certs/api.primary.pem")
    return tmp_path


@pytest.mark.parametrize("sample", ["keyserver", "dcissuer", "proxy", "proxy-origins", "certmanager"])
def test_sample_configuration_is_good(samples, sample):
    config = samples / f"{sample}.json"
    program = sample.partition("-")[0]
    done = run(BIN_DIR / f"deputy-{program}", "--config", config, "--check-config")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
@pytest.mark.parametrize("program", ["deputy-keyserver", "deputy-dcissuer", "deputy-proxy",
                                     "deputy-certmanager"])
def test_sample_unit_is_good(tmp_path, program):
    text = (DOCS / "examples" / f"{program}.service").read_text()
    assert f"/usr/local/bin/{program} " in text
    unit = tmp_path / f"{program}.service"
    unit.write_text(text.replace("/usr/local/bin/", f"{BIN_DIR}/"))
    done = run("systemd-analyze", "verify", "--man=no", unit)
    assert done.returncode == 0 and done.stdout + done.stderr == "", done.stdout + done.stderr


@pytest.mark.skipif(not (BIN_DIR.parent / "cmake_install.cmake").exists(), reason="no build folder")
def test_installed_units_name_installed_programs(tmp_path):
    prefix = tmp_path / "prefix"
    done = run("cmake", "--install", BIN_DIR.parent, "--prefix", prefix)
    assert done.returncode == 0, done.stderr
    units = sorted((prefix / "lib/systemd/system").glob("*.service"))
    users = (prefix / "lib/sysusers.d/deputy.conf").read_text()
    assert [unit.stem for unit in units] == ["deputy-certmanager", "deputy-dcissuer",
                                             "deputy-keyserver", "deputy-proxy"]
    for unit in units:
        text = unit.read_text()
        assert f"ExecStart={prefix}/bin/{unit.stem} " in text
        assert (prefix / "bin" / unit.stem).exists()
        assert f"u {unit.stem} " in users and f"User={unit.stem}\n" in text
        if shutil.which("systemd-analyze"):
            done = run("systemd-analyze", "verify", "--man=no", unit)
            assert done.returncode == 0 and done.stdout + done.stderr == "", done
    assert (prefix / "share/doc/deputy/examples/proxy.json").exists()
    assert (prefix / "share/doc/deputy/deputy-proxy.md").exists()


@pytest.mark.parametrize("program", ["keyserver", "dcissuer", "proxy"])
def test_unknown_option_is_named_with_line_and_what_was_meant(samples, program):
    config = samples / f"{program}.json"
    lines = config.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if '"tls":' in line)
    lines[number] = lines[number].replace('"tls":', '"tsl":')
    config.write_text("\n".join(lines))
    done = run(BIN_DIR / f"deputy-{program}", "--config", config, "--check-config")
    assert done.returncode == 2
    assert f"{program}.json:{number + 1}:" in done.stderr
    assert '"tsl"' in done.stderr and 'did you mean "tls"' in done.stderr


@pytest.mark.parametrize("program", ["deputy-keyserver", "deputy-dcissuer", "deputy-proxy",
                                     "deputy-certmanager", "deputyctl"])
def test_help_and_version(program):
    done = run(BIN_DIR / program, "--help")
    assert done.returncode == 0 and "usage:" in done.stdout
    done = run(BIN_DIR / program, "--version")
    assert done.returncode == 0 and re.search(r"\d+\.\d+\.\d+", done.stdout)


def pages():
    """Every page that git knows, or would."""
    listed = run("git", "-C", SOURCE_DIR, "ls-files", "-co", "--exclude-standard", "*.md")
    assert listed.returncode == 0, listed.stderr
    return [SOURCE_DIR / name for name in listed.stdout.split()]


def test_links_lead_somewhere():
    num = 0
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                num += 1
                assert (page.parent / target).exists(), f"{page}: {target}"
    assert num > 5


def test_named_files_exist():
    """Files that the papers name in backticks are there."""
    missing = []
    for page in [SOURCE_DIR / "ARCHITECTURE.md", SOURCE_DIR / "README.md", DOCS / "THREAT-MODEL.md",
                 SOURCE_DIR / "CONTRIBUTING.md"]:
        for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:c|h|py|md|json))`", page.read_text()):
            if "NAME" not in name and not (SOURCE_DIR / pathlib.Path(name)).exists():
                missing.append(f"{page.name}: {name}")
    assert not missing
