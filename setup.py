"""Install llm_mde_core and llm_mde_ros: by colcon (ament_python) and by pip, the same tree."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

NAME = 'llm_mde_ros'
ROOT = Path(__file__).parent


def files(pattern):
    """List the files under the repository that fit a pattern, relative to it."""
    return sorted(str(p.relative_to(ROOT)) for p in ROOT.glob(pattern) if p.is_file())


setup(
    name=NAME,
    version=ElementTree.parse(ROOT / 'package.xml').findtext('version'),
    description='Metric depth and point clouds from one camera, as a ROS 2 node',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['llm_mde_core', 'llm_mde_core.*', 'llm_mde_ros']),
    package_data={
        'llm_mde_core': [
            str(Path(name).relative_to('llm_mde_core'))
            for name in files('llm_mde_core/checkpoints/**/*')
        ],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + NAME]),
        ('share/' + NAME, ['package.xml']),
        ('share/' + NAME + '/launch', files('launch/*.launch.py')),
        ('share/' + NAME + '/config', files('config/*')),
        # `ros2 run` and launch look for executables here, where pip puts no console scripts
        ('lib/' + NAME, ['scripts/depth_node']),
    ],
    # rclpy and the messages come from ROS (or its wheels, see requirements.txt)
    install_requires=[
        'matplotlib>=3.5',
        'numpy>=1.24',
        'opencv-python-headless>=4.5,<5',
        'peft>=0.11',
        'rich>=12',
        'rosbags>=0.11',
        'ruamel.yaml>=0.17',
        'safetensors>=0.4',
        'torch>=2.7',
        'transformers>=5.20',
        'typer>=0.9',
    ],
    extras_require={
        'onnx': ['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.5'],  # llm-mde export
        'test': ['hypothesis>=6', 'pillow>=10', 'pytest>=7', 'pyyaml>=5.4'],
    },
    entry_points={
        'console_scripts': [
            'depth_node = llm_mde_ros.__main__:main',
            'llm-mde = llm_mde_ros.cli:main',
        ],
    },
    zip_safe=False,
)
