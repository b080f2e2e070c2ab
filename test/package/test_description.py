"""What package.xml, setup.py, training/pyproject.toml and requirements.txt say fits together."""

import os
from pathlib import Path
import re
from xml.etree import ElementTree

from package.imports import imported
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_XML = ElementTree.parse(ROOT / 'package.xml')
# what rosdep calls the requirements of setup.py; two have no key, as package.xml says
ROSDEP_KEYS = {
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'opencv-python-headless': 'python3-opencv',
    'peft': None,
    'rich': 'python3-rich',
    'rosbags': 'python3-rosbags-pip',
    'ruamel-yaml': 'python3-ruamel.yaml',
    'safetensors': None,
    'torch': 'python3-torch',
    'transformers': 'python3-transformers-pip',
    'typer': 'python3-typer',
}


def listed(text: str, name: str) -> list[Requirement]:
    """Return the requirements in the list `name = [...]` of a Python or TOML text."""
    (items,) = re.findall(rf'^ *{name} ?= ?\[(.*?)^ *\]', text, flags=re.DOTALL | re.MULTILINE)
    return [Requirement(item) for item in re.findall(r"^ *'([^']+)'", items, flags=re.MULTILINE)]


def requirements_of_setup() -> list[Requirement]:
    return listed((ROOT / 'setup.py').read_text(), 'install_requires')


def requirements_of_export() -> list[Requirement]:
    """Return what `llm-mde export` needs on top, an extra of setup.py."""
    (items,) = re.findall(r"'onnx': \[(.*?)\]", (ROOT / 'setup.py').read_text())
    return [Requirement(item) for item in re.findall(r"'([^']+)'", items)]


def requirements_of_training() -> list[Requirement]:
    return listed((ROOT / 'training/pyproject.toml').read_text(), 'dependencies')


def pins() -> dict[str, list[Requirement]]:
    """Return the pins by name; one may have two, for older and for newer Pythons."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / 'requirements.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    (torch,) = re.findall(r'^TORCH \?= (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    return found | {'torch': [Requirement(torch)]}


def imports_of(folder: Path) -> set[str]:
    """Return the top names of all modules that the Python files of a folder import."""
    texts = [path.read_text() for path in sorted(folder.rglob('*.py'))]
    return set().union(*(imported(text) for text in texts))


def exec_depends() -> set[str]:
    return {element.text or '' for element in PACKAGE_XML.iter('exec_depend')}


def test_requirements_leave_ros_and_torchvision_alone() -> None:
    names = {canonicalize_name(r.name) for r in requirements_of_setup()}
    assert names == set(ROSDEP_KEYS)  # so no rclpy, no messages, no torchvision


@pytest.mark.parametrize(
    'source', [requirements_of_setup, requirements_of_export, requirements_of_training]
)
def test_the_pinned_versions_fit_what_the_packages_require(source) -> None:
    known = pins()
    for requirement in source():
        name = canonicalize_name(requirement.name)
        if name == 'llm-mde-ros':
            continue
        for pin in known[name]:
            (version,) = (s.version for s in pin.specifier)
            assert requirement.specifier.contains(version), f'{requirement} but {pin}'


def test_every_pin_is_exact_and_holds_on_each_python() -> None:
    for name, found in pins().items():
        assert all([s.operator for s in pin.specifier] == ['=='] for pin in found), name
        assert not any(pin.url for pin in found), name
        for version in ['3.10', '3.11', '3.14']:
            fitting = [
                pin
                for pin in found
                if pin.marker is None or pin.marker.evaluate({'python_version': version})
            ]
            only_old = len(found) == 1 and found[0].marker is not None
            assert len(fitting) == 1 or only_old, f'{name} on Python {version}: {fitting}'


def test_package_xml_declares_what_setup_requires_and_the_code_imports() -> None:
    assert {key for key in ROSDEP_KEYS.values() if key} <= exec_depends()
    names = imports_of(ROOT / 'llm_mde_ros') | imports_of(ROOT / 'launch')
    ros = {
        name
        for name in names
        if name.endswith(('_msgs', '_interfaces', '_msgs_py'))
        or name in {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'ament_index_python'}
    }
    assert ros
    assert not ros - exec_depends()


@pytest.mark.parametrize(
    ('packages', 'source'),
    [
        (['llm_mde_core', 'llm_mde_ros'], requirements_of_setup),
        (['training/llm_mde_train'], requirements_of_training),
    ],
)
def test_what_is_imported_from_pypi_is_required(packages: list[str], source) -> None:
    modules = {'cv2': 'opencv-python-headless', 'yaml': 'pyyaml'}
    modules |= dict.fromkeys(('huggingface_hub', 'tokenizers'), 'transformers')  # it brings both
    pinned = {name.replace('-', '_') for name in pins()} | set(modules)
    names = set().union(*(imports_of(ROOT / package) for package in packages))
    used = {modules.get(name, name).replace('_', '-') for name in names & pinned}
    required = [*source(), *requirements_of_export()]
    assert used <= {canonicalize_name(requirement.name) for requirement in required}


def test_versions_agree() -> None:
    training = (ROOT / 'training/pyproject.toml').read_text()
    versions = {
        PACKAGE_XML.findtext('version'),
        ElementTree.parse(ROOT / 'msg/package.xml').findtext('version'),
        *re.findall(r"^version = '(.*)'$", training, flags=re.MULTILINE),
    }
    assert len(versions) == 1


def test_programs_are_executable() -> None:
    for name in ['scripts/depth_node', '.ci/run']:
        assert os.access(ROOT / name, os.X_OK), name


def test_the_licence_is_whole() -> None:
    text = (ROOT / 'LICENSE').read_text()
    assert 'Version 2.0, January 2004' in text
    assert 'END OF TERMS AND CONDITIONS' in text


def test_fast_dds_gets_64_mb_of_shared_memory() -> None:
    space = {'dds': 'http://www.eprosima.com'}
    profiles = ElementTree.parse(ROOT / 'config/fastdds.xml').getroot()
    transports = {
        t.findtext('dds:transport_id', namespaces=space): t
        for t in profiles.iterfind('.//dds:transport_descriptor', space)
    }
    used = profiles.iterfind('.//dds:userTransports/dds:transport_id', space)
    assert {element.text for element in used} == set(transports)
    kinds = {t.findtext('dds:type', namespaces=space): t for t in transports.values()}
    assert set(kinds) == {'SHM', 'UDPv4'}
    assert kinds['SHM'].findtext('dds:segment_size', namespaces=space) == str(64 * 1024 * 1024)
    (participant,) = profiles.iterfind('.//dds:participant', space)
    assert participant.get('is_default_profile') == 'true'
